/** Holds a model with gates against rewritten graphs: at 1 the same bits, at 0 what removing and making parallel gives. */
import { dirname } from 'node:path';
import * as assert from 'uvu/assert';
import { Diagnostic } from '../../../ir/diagnostic.js';
import { openModel, referenceBytes } from '../../../ir/disk/model.js';
import { factsOf, parallelizeFfn, parsePipeline, registry, runPipeline } from '../../../passes/index.js';
import { type LayerChoice, NO_CHANGE } from '../../../runtime/choose/choice.js';
import { gateFeeds, gateModel, openGated } from '../../../runtime/choose/gates.js';
import { makeFeeds } from '../../../runtime/run/feeds.js';
import { stepTokens } from '../../../runtime/run/steps.js';
import { openSession } from '../../../runtime/session/session.js';
import type { TensorMap } from '../../../runtime/session/tensor.js';
import { readSignature, type Signature } from '../../../runtime/signature/signature.js';
import { compareOutputs } from '../../../runtime/verify/compare.js';
import { toleranceFor } from '../../../runtime/verify/tolerance.js';

/**
 * float16 operators without a CPU kernel run in float32 between casts that onnxruntime inserts, and it drops a cast and its
 * inverse where no other node stands between them: then one node more rounds once more.
 */
const EMULATED = /int4-dml/;
export const DISABLED = { optimization: 'disabled' } as const;

/** Token ids and the model's other inputs: a prefill. */
export function feedsOf(signature: Signature): TensorMap {
  const ids = stepTokens(signature, 1, 9, 3);
  return makeFeeds(signature, { tokenIds: signature.sequence === null ? ids.map((row) => row.slice(0, 9)) : ids })
    .tensors;
}

/** Logits of the model at `path` after the passes of `pipeline`, nothing written. */
async function rewritten(path: string, pipeline: string): Promise<{ outputs: TensorMap; logits: string }> {
  const model = openModel(path);
  runPipeline(model, parsePipeline(pipeline, registry));
  const signature = readSignature(model);
  const folder = dirname(path);
  const session = await openSession({ bytes: referenceBytes(model, folder), folder }, DISABLED);
  try {
    const logits = signature.logits ?? (signature.outputs[0]?.name as string);
    return { outputs: await session.run(feedsOf(signature), [logits]), logits };
  } finally {
    await session.release();
  }
}

export interface GateCheck {
  /** Largest relative error of a plan. */
  readonly plan: number;
  readonly tolerance: number;
  /** Plans that change the logits. */
  readonly changing: number;
}

/** Choices that this model can have, with the pipeline that builds each. */
function choicesFor(path: string, layers: readonly number[], attentions: readonly number[]): [LayerChoice, string][] {
  const gone = attentions.filter((layer) => layer > Math.min(...layers));
  const result: [LayerChoice, string][] = [];
  const removed = openModel(path);
  const text = `inline-functions,remove-attention{layers=${gone.join(',')}},parallelize-ffn{keep-last=0}`;
  const made = runPipeline(removed, parsePipeline(text, registry));
  const runs = factsOf(made, parallelizeFfn).map((run) => run.layers.map(Number));
  result.push([{ ...NO_CHANGE, removeAttention: gone, runs }, text]);
  result.push([{ ...NO_CHANGE, removeFfn: [layers[1] as number] }, `inline-functions,remove-ffn{layers=${layers[1]}}`]);
  const window = layers.slice(0, 2);
  const blocks = `inline-functions,parallelize-blocks{windows=${window[0]}-${window[1]} form=literal}`;
  result.push([{ ...NO_CHANGE, windows: [window] }, blocks]);
  return result;
}

/** Runs the model at `path` with gates, and each choice that it can have as a rewritten graph. */
export async function checkGates(path: string): Promise<GateCheck> {
  const gated = gateModel(path);
  const session = await openGated(gated, DISABLED);
  try {
    const original = await rewritten(path, 'inline-functions');
    const run = async (choice: LayerChoice) =>
      session.run(new Map([...feedsOf(gated.signature), ...gateFeeds(gated.plan, choice)]), [original.logits]);
    const same = compareOutputs(original.outputs, await run(NO_CHANGE));
    if (!EMULATED.test(path)) assert.is(same.outputs[0]?.absolute, 0, `${path}: gates at 1 are not exact`);
    else assert.ok((same.outputs[0]?.relative ?? 1) <= toleranceFor(openModel(path)).relative, path);
    const layers = [...new Set(gated.plan.branches.map(({ layer }) => layer.index))];
    const attentions = gated.plan.branches
      .filter(({ branch }) => branch.role === 'attention')
      .map(({ layer }) => layer.index);
    let plan = 0;
    let changing = 0;
    for (const [choice, pipeline] of choicesFor(path, layers, attentions)) {
      let expected: TensorMap;
      try {
        expected = (await rewritten(path, pipeline)).outputs;
      } catch (error) {
        // What the passes refuse is no plan: an attention whose cache others read, two branches on one sum...
        if (error instanceof Diagnostic && /^OF_CANNOT_/.test(error.code)) continue;
        throw error;
      }
      const error = compareOutputs(expected, await run(choice)).outputs[0]?.relative ?? Number.NaN;
      assert.ok(error <= toleranceFor(openModel(path)).relative, `${path}, ${pipeline}: ${error}`);
      if (compareOutputs(expected, original.outputs).outputs[0]?.relative !== 0) changing++;
      plan = Math.max(plan, error);
    }
    return { plan, tolerance: toleranceFor(openModel(path)).relative, changing };
  } finally {
    await session.release();
  }
}
