/** Holds the ranks of a folder, run together on the CPU, against the model they were made of. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Model, openModel } from '../../ir/index.js';
import {
  type Candidate,
  type Comparison,
  chainOf,
  openGroup,
  type RankChain,
  type Tolerance,
  usesBfloat16,
  verifyPair,
} from '../../runtime/index.js';
import { apiErrors } from '../basics/errors.js';
import type { Talk } from '../basics/progress.js';
import { lackOfMemory, toleranceIn, twinFor, whyItFails } from '../fuse/check.js';
import { type Prepared, prepare } from '../fuse/prepared.js';
import { chainIn, rankFolder, segmentName } from './chain-file.js';
import type { RankGroup } from './polygraphy-ranks.js';
import { type RanksFile, rankModelName } from './ranks-file.js';

/**
 * How much more than a fused model ranks may differ from the original: they add up every branch in another order, not only
 * those of a run. The values in the last cache of SmolLM2 (30 layers, a few of its activations are thousands of times the others)
 * are 1.2e-5 apart between two ranks and the model, its logits 1.6e-6.
 */
const MORE = 2;

/** How the ranks together differ from the original. */
export interface RankComparison<More> {
  readonly comparison: Comparison;
  /** What was asked besides. */
  readonly more: More;
  readonly tolerance: Tolerance;
  /** What was done in another way than asked, and why. */
  readonly notes: readonly string[];
}

/**
 * Compares prefills and decode steps, and does `more` with both, the ranks being one session. Where onnxruntime has no bfloat16 kernels for the original, fp32 twins of all stand in.
 * A string is why the original cannot be run here.
 * @throws Diagnostic OF_RUNTIME where the ranks do not run, OF_NOT_COMPARABLE where they do not fit together.
 */
export async function compareRanks<More>(
  original: string,
  folder: string,
  facts: RankGroup,
  talk: Talk,
  more: (pair: readonly [Candidate, Candidate], notes: string[]) => Promise<More>,
): Promise<RankComparison<More> | string> {
  const model = openModel(original);
  const plain: Candidate = { location: original, model };
  const lack = lackOfMemory(model);
  if (lack !== null) return lack;
  const failed = await whyItFails(plain, talk);
  if (failed !== null && !usesBfloat16(model)) return failed;
  const notes: string[] = [...facts.notes];
  const form = twinFor(model, failed);
  let twin: Prepared | null = null;
  try {
    if (form) {
      notes.push(`compared ${form.note}${failed === null ? '' : `: ${failed}`}`);
      twin = await prepare(form.make(openModel(original)), tmpdir());
      const still = await whyItFails(twin, talk);
      if (still !== null) return still;
    }
    const reference = twin ?? plain;
    const own = toleranceIn(form, model);
    const tolerance = { ...own, relative: own.relative * MORE };
    const make = (model: Model): Model => form?.make(model) ?? model;
    const chains = chainsOf(facts).map((chain) => ({ ...chain, open: (index: number) => make(chain.open(index)) }));
    const { caches } = facts;
    const group: Candidate = {
      location: folder,
      model: reference.model,
      open: (options) => openGroup(chains, { caches }, options),
    };
    const onRun = (done: number, total: number) => talk.progress('running the ranks', done, total);
    const comparison = await verifyPair(reference, group, { onRun });
    return { comparison, more: await more([reference, group], notes), tolerance, notes };
  } finally {
    talk.done();
    await twin?.discard();
  }
}

/** The ranks that a ranks.json describes. */
export function ranksIn(folder: string, file: RanksFile): RankGroup {
  const models = file.rankFiles.map(({ rank }) => join(folder, file.chain ? rankFolder(rank) : rankModelName(rank)));
  const { chain } = file;
  const chains = chain && models.map((_, rank) => chainIn(folder, rank, chain));
  return { ...file, models, notes: [], ...(chains ? { chains } : {}) };
}

/** The chains of all ranks; ranks.json may say what its models do not have. */
function chainsOf({ models, caches, collectives, style, chains }: RankGroup): readonly RankChain[] {
  if (chains) {
    for (const chain of chains) checkChainFits(chain);
    return chains;
  }
  const borders = style === 'none' ? collectives : [];
  return models.map((place) => {
    const { graph } = openModel(place);
    const names = [
      ...caches.map(({ name }) => name),
      ...borders.flatMap(({ gives, gets }) => [gives, ...(gets === null ? [] : [gets])]),
    ];
    const absent = names.find((name) => !graph.value(name));
    if (absent !== undefined) throw apiErrors.ranks(place, `it has no '${absent}', which ranks.json names`);
    return chainOf(() => openModel(place), borders, place);
  });
}

function checkChainFits({ place, segments, open }: RankChain): void {
  for (const [index, { inputs, carried, outputs }] of segments.entries()) {
    if (outputs.length === 0) continue;
    const { graph } = open(index);
    const found = [graph.inputs, graph.outputs].map((values) => new Set(values.map(({ name }) => name)));
    for (const [i, names] of [[...inputs, ...carried], outputs].entries()) {
      const absent = names.find((name) => !found[i]?.has(name));
      if (absent === undefined) continue;
      throw apiErrors.ranks(place, `its ${segmentName(index)} has no '${absent}', which ranks.json names`);
    }
  }
}
