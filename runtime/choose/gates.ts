import { openModel, referenceOf } from '../../ir/index.js';
import { passErrors } from '../../passes/analysis/errors.js';
import {
  type Branch,
  GATES,
  type GatePlan,
  gatePreparation,
  gateSteps,
  layersOf,
  plainDecoder,
  planGates,
  Refusal,
  type ReversedRuns,
  runPipeline,
} from '../../passes/index.js';
import { checkClaim } from '../run/room.js';
import { runtimeErrors } from '../session/errors.js';
import { type ModelLocation, openSession, placeOf, type Session, type SessionOptions } from '../session/session.js';
import { fillTensor, type HostTensor, type TensorMap } from '../session/tensor.js';
import { readSignature, type Signature } from '../signature/signature.js';
import type { LayerChoice } from './choice.js';

/**
 * Settings of all gates for a choice: 0 takes away, 1 leaves.
 * @throws Diagnostic OF_NO_SUCH_LAYER; OF_CANNOT_INSTRUMENT for what gates cannot express, such as a run across a norm
 * of the stream.
 */
export function gateValues(plan: GatePlan, choice: LayerChoice): { contributions: Float32Array; inputs: Float32Array } {
  const contributions = new Float32Array(plan.branches.length).fill(1);
  const inputs = new Float32Array(plan.pairs.length).fill(1);
  const layers = plan.branches.map(({ layer }) => layer.index);
  const branchesOf = (layer: number, part: 'attention' | 'ffn' | null): number[] => {
    if (!layers.includes(layer))
      throw passErrors.noSuchLayer(layer, `${Math.min(...layers)} to ${Math.max(...layers)}`);
    return layers.flatMap((each, i) =>
      each === layer && (part === null || partOf(plan.branches[i]?.branch) === part) ? [i] : [],
    );
  };
  for (const layer of choice.removeAttention) for (const i of branchesOf(layer, 'attention')) contributions[i] = 0;
  for (const layer of choice.removeFfn) for (const i of branchesOf(layer, 'ffn')) contributions[i] = 0;
  const cut = (reader: number, read: number): void => {
    const sum = plan.sums.findIndex(({ branches }) => branches.includes(reader));
    if (plan.sums[sum]?.branches.includes(read)) return;
    const pair = plan.pairs.findIndex((each) => each.sum === sum && each.branch === read);
    if (pair >= 0) inputs[pair] = 0;
    else
      throw runtimeErrors.cannotInstrument(
        '',
        `what layer ${layers[reader]} reads of layer ${layers[read]} has no gate`,
      );
  };
  for (const run of choice.runs) {
    const members = run.flatMap((layer) => branchesOf(layer, 'ffn'));
    for (const [i, reader] of members.entries()) for (const read of members.slice(0, i)) cut(reader, read);
  }
  for (const window of choice.windows) {
    for (const [i, layer] of window.entries()) {
      const before = window.slice(0, i).flatMap((each) => branchesOf(each, null));
      for (const reader of branchesOf(layer, null)) {
        for (const read of before) cut(reader, read);
      }
    }
  }
  return { contributions, inputs };
}

/** What removal takes a branch for; null for one that only goes with its whole block: a linear, another mixer of tokens. */
function partOf(branch: Branch | undefined): 'attention' | 'ffn' | null {
  if (branch?.role === 'attention' || branch?.role === 'ffn') return branch.role;
  return branch?.role === 'other' && !branch.mixesTokens ? 'ffn' : null;
}

/** A model with gates, not yet running: the header in memory, over the weights in the user's own files. */
export interface GatedModel {
  readonly plan: GatePlan;
  readonly signature: Signature;
  readonly location: ModelLocation;
}

/**
 * Gives the model at `path` gates. Nothing is written.
 * @throws Diagnostic OF_CANNOT_INSTRUMENT when it has no residual stream that gates can be put on.
 */
export function gateModel(path: string, reversed: ReversedRuns = { removeAttention: [], runs: [] }): GatedModel {
  const model = plainDecoder(openModel(path), 'prompt');
  runPipeline(model, gatePreparation(reversed));
  const plan = planGates(layersOf(model), 0, reversed.runs);
  if (plan instanceof Refusal) throw runtimeErrors.cannotInstrument(path, plan.message);
  runPipeline(model, gateSteps(reversed));
  return { plan, signature: readSignature(model), location: referenceOf(model) };
}

/** Opens a session on a gated model. */
export function openGated(gated: GatedModel, options: SessionOptions = {}): Promise<Session> {
  checkClaim(gated.signature, placeOf(gated.location));
  return openSession(gated.location, options);
}

/** The gates of a choice as inputs, to be fed beside the model's own. */
export function gateFeeds(plan: GatePlan, choice: LayerChoice): TensorMap {
  const { contributions, inputs } = gateValues(plan, choice);
  const feeds = new Map<string, HostTensor>([[GATES.contributions, tensorOf(contributions)]]);
  if (inputs.length > 0) feeds.set(GATES.inputs, tensorOf(inputs));
  return feeds;
}

function tensorOf(values: Float32Array) {
  return fillTensor('float', [values.length], (i) => values[i] as number);
}
