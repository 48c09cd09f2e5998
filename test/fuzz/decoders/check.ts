/** One case: a decoder through a pipeline with nothing checked, held against the same without fusion and against its description. */
import { Diagnostic } from '../../../ir/diagnostic.js';
import { openModelBytes, referenceBytes } from '../../../ir/disk/model.js';
import {
  concatAttention,
  concatFfn,
  factsOf,
  type PipelineResult,
  parallelizeBlocks,
  parallelizeFfn,
  parsePipeline,
  referenceSteps,
  registry,
  removeAttention,
  removeFfn,
  renameKv,
  requantizeFfn,
  runPipeline,
} from '../../../passes/index.js';
import { normal } from '../../../runtime/run/random.js';
import { evaluate, loadProgram, type Values } from '../evaluate.js';
import { Wrong } from '../failure.js';
import { joined } from '../operators/shapes.js';
import { INT64, type Tensor, tensor } from '../operators/tensor.js';
import { decoderBytes } from './build.js';
import { checkRanks } from './check-ranks.js';
import { compare, REORDERED } from './compare.js';
import { type Done, editedSums, expectedRuns, passedOver, placesOf } from './expected.js';
import { type FuzzRequest, pipelineOf } from './request.js';
import { type Answer, answer, type Question, sumsOf } from './semantics.js';
import { type DecoderSpec, layerNumber } from './spec.js';
import { Weights } from './weights.js';

export interface DecoderCase {
  readonly spec: DecoderSpec;
  readonly request: FuzzRequest;
}

/** What came out; anything but these is thrown as a Wrong. */
export interface Verdict {
  /** Codes of refusals, where there were some: nothing was compared then. */
  readonly refused: string | null;
  readonly fusedRuns: number;
  readonly mergedAttentions: number;
  readonly cutBranches: number;
  readonly comparisons: number;
  /** Largest relative differences: of fused and unfused, of unfused and described, of ranks and whole. */
  readonly worst: { readonly algebra: number; readonly meaning: number; readonly ranks: number };
  /** The file that came out, for whoever wants to run it. */
  readonly bytes: Uint8Array | null;
}

/** Folded weights are rounded to float32, 6e-8 each; a few layers of tiny widths multiply that by some tens. */
const FOLDED = 3e-5;
/** Blocks quantised again: of the size of a step of 4 bits, of 8 bits. */
const REQUANTISED = { 4: 0.9, 8: 0.1 };

const TOKENS = 3;

/** Token ids, caches and masks for a decoder. */
export function questionFor(spec: DecoderSpec, batch = 2): Question {
  const { attention } = spec;
  const past = attention.cache ? 2 : 0;
  const count = batch * attention.kvHeads * past * attention.size;
  return {
    ids: Array.from({ length: batch }, (_, b) =>
      Array.from({ length: TOKENS }, (_, t) => (3 * b + 5 * t + 1) % spec.vocabulary),
    ),
    past,
    cache: (number, part) =>
      Float64Array.from({ length: count }, (_, i) => normal(2 * number + (part === 'key' ? 1 : 2), i)),
    mask: Float64Array.from({ length: batch * TOKENS * (past + TOKENS) }, (_, i) => normal(77, i)),
  };
}

/** Values for every input that the original decoder may have. */
export function feedsFor(spec: DecoderSpec, { ids, past, cache, mask }: Question): Map<string, Tensor> {
  const { kvHeads, size } = spec.attention;
  const [batch, total] = [ids.length, past + TOKENS];
  const feeds = new Map<string, Tensor>([
    ['input_ids', tensor([batch, TOKENS], ids.flat(), INT64)],
    [
      'position_ids',
      tensor(
        [batch, TOKENS],
        ids.flatMap((row) => row.map((_, t) => past + t)),
        INT64,
      ),
    ],
    [
      'seqlens_k',
      tensor(
        [batch],
        ids.map(() => total - 1),
        6,
      ),
    ],
    ['total_sequence_length', tensor([], [total], 6)],
    ['attention_bias', tensor([batch, 1, TOKENS, total], mask)],
  ]);
  for (const i of spec.layers.keys()) {
    const number = layerNumber(spec, i);
    for (const part of ['key', 'value'] as const) {
      feeds.set(`past_key_values.${number}.${part}`, tensor([batch, kvHeads, past, size], cache(number, part)));
    }
  }
  return feeds;
}

/** Runs the case. Throws Wrong, or whatever the code under test throws beside Diagnostics. */
export function checkDecoder({ spec, request }: DecoderCase): Verdict {
  const weights = new Weights(spec);
  const bytes = decoderBytes(spec, weights);
  const question = questionFor(spec);
  const feeds = feedsFor(spec, question);
  const sums = sumsOf(spec);
  const worst = { algebra: 0, meaning: 0, ranks: 0 };
  const verdict = {
    refused: null,
    fusedRuns: 0,
    mergedAttentions: 0,
    cutBranches: 0,
    comparisons: 1,
    worst,
    bytes: null,
  };
  const original = evaluate(loadProgram(bytes), feeds);
  compare(original, toOutputs(spec, answer(spec, weights, sums, question)), REORDERED, 'generator', 'the original');
  if (request.gates) checkGates(spec, weights, request.gates, bytes, feeds, question);
  if (request.annotate) checkAnnotated(bytes, feeds, original);

  const steps = parsePipeline(pipelineOf(request), registry);
  const model = openModelBytes(bytes, '.');
  const reference = openModelBytes(bytes, '.');
  let result: PipelineResult;
  try {
    result = runPipeline(model, steps);
  } catch (error) {
    return { ...verdict, refused: refusal(error) };
  }
  runPipeline(reference, referenceSteps(steps));
  const missed = new Set(
    result.remarks.flatMap(({ kind, layer }) => (kind === 'missed' && layer !== null ? [layer] : [])),
  );
  const silence = passedOver(spec, request, result, missed);
  if (silence) throw new Wrong('silent', silence);
  const ways = layersDone(spec, request, result);
  const planned = expectedRuns(spec, request, ways);
  if (planned && JSON.stringify(planned) !== JSON.stringify(ways.runs)) {
    throw new Wrong('runs', `expected ${JSON.stringify(planned)}, found ${JSON.stringify(ways.runs)}`);
  }
  const written = referenceBytes(model, '.');
  const unfused = evaluateRenamed(referenceBytes(reference, '.'), feeds, []);
  const meant = toOutputs(spec, answer(spec, weights, editedSums(sums, ways), question));
  const bits = spec.layers.flatMap(({ ffn }) => (ffn?.format.kind === 'blocks' ? [ffn.format.bits] : []))[0] ?? 4;
  const meaning = factsOf(result, requantizeFfn).length > 0 ? REQUANTISED[bits] : REORDERED;
  worst.meaning = compare(unfused, meant, meaning, 'meaning', 'what the plan means');

  const merged = factsOf(result, concatAttention);
  const caches = merged.flatMap((each) => each.caches);
  const renamed = new Map(factsOf(result, renameKv).map(({ from, to }) => [to, from]));
  const join = (tensors: Values): Map<string, Tensor> => joinedCaches(tensors, caches, renamed);
  const fused = evaluateRenamed(written, join(feeds), []);
  const tolerance = spec.coarse ? REORDERED : FOLDED;
  worst.algebra = compare(fused, join(unfused), tolerance, 'algebra', 'the unfused model');

  let cutBranches = 0;
  if (request.shard) {
    const cut = checkRanks(request.shard, written, join(feeds), fused);
    cutBranches = cut.branches;
    worst.ranks = cut.worst;
  }
  return {
    ...verdict,
    fusedRuns: factsOf(result, concatFfn).length,
    mergedAttentions: merged.length,
    cutBranches,
    comparisons: 3 + (request.shard ? 1 : 0),
    bytes: written,
  };
}

/** The code of a refusal; what is none is thrown on. */
export function refusal(error: unknown): string {
  if (!(error instanceof Diagnostic) || error.code === 'OF_INVALID_GRAPH') throw error;
  return error.code;
}

function layersDone(spec: DecoderSpec, request: FuzzRequest, result: PipelineResult): Done {
  const places = (labels: readonly (string | number)[]): number[] => placesOf(spec, labels);
  return {
    removedAttention: places(factsOf(result, removeAttention).map(({ layer }) => layer)),
    removedFfn: places(factsOf(result, removeFfn).map(({ layer }) => layer)),
    windows: factsOf(result, parallelizeBlocks).map(({ layers }) => places(layers)),
    literal: request.blockForm === 'literal',
    runs: factsOf(result, parallelizeFfn).map(({ layers }) => places(layers)),
    lastNorm: request.norm === 'last',
  };
}

/** The answer as the graph's outputs. */
function toOutputs({ attention, vocabulary }: DecoderSpec, { logits, presents }: Answer): Map<string, Tensor> {
  const batch = logits.length / (TOKENS * vocabulary);
  const outputs = new Map([['logits', tensor([batch, TOKENS, vocabulary], logits)]]);
  for (const [place, data] of presents) {
    const total = data.length / (batch * attention.kvHeads * attention.size);
    outputs.set(`present.${place}`, tensor([batch, attention.kvHeads, total, attention.size], data));
  }
  return outputs;
}

/** Caches of several layers that are one now, under the names that they have now. */
function joinedCaches(
  tensors: Values,
  caches: readonly { readonly members: readonly string[]; readonly axis: number }[],
  renamed: ReadonlyMap<string, string>,
): Map<string, Tensor> {
  const found = new Map(tensors);
  for (const { members, axis } of caches) {
    const parts = members.map((name) => found.get(name));
    if (parts.some((part) => !part)) continue;
    for (const name of members) found.delete(name);
    found.set(members[0] as string, joined(parts as Tensor[], axis));
  }
  const moved = [...renamed].flatMap(([to, from]): [string, Tensor][] => {
    const value = found.get(from);
    return value ? [[to, value]] : [];
  });
  for (const from of renamed.values()) found.delete(from);
  return new Map([...found, ...moved]);
}

function evaluateRenamed(bytes: Uint8Array, feeds: Values, ignored: readonly string[]): Map<string, Tensor> {
  const program = loadProgram(bytes);
  const absent = program.inputs.find((name) => !feeds.has(name) && !program.constants.has(name));
  if (absent !== undefined) throw new Wrong('interface', `nobody knows the input '${absent}'`);
  const outputs = evaluate(program, feeds);
  for (const name of ignored) outputs.delete(name);
  return outputs;
}

/** Gates at 0 are branches that are not there. */
function checkGates(
  spec: DecoderSpec,
  weights: Weights,
  closed: readonly number[],
  bytes: Uint8Array,
  feeds: Values,
  question: Question,
): void {
  const model = openModelBytes(bytes, '.');
  const { steps } = runPipeline(model, parsePipeline('instrument', registry));
  const count = steps[0]?.statistics['branches'] ?? 0;
  const pairs = steps[0]?.statistics['pairs'] ?? 0;
  const sums = sumsOf(spec);
  if (count === 0 || spec.residual === 'parallel' || spec.residual === 'parallel-one-norm') return;
  if (count !== sums.length) throw new Wrong('gates', `${count} gates for ${sums.length} branches`);
  const gates = Float64Array.from({ length: count }, (_, i) => Number(!closed.includes(i)));
  const all = new Map([
    ...feeds,
    ['onnx_fuse.contribution_gates', tensor([count], gates)] as const,
    ['onnx_fuse.input_gates', tensor([pairs], new Float64Array(pairs).fill(1))] as const,
  ]);
  const found = evaluateRenamed(referenceBytes(model, '.'), all, []);
  const open = sums.filter((_, i) => gates[i] === 1);
  // Branches that are closed still run: their caches are there, with other contents than they would have alone.
  const meant = toOutputs(spec, answer(spec, weights, open, question));
  const names = [...meant.keys()];
  const kept = new Map([...found].filter(([name]) => names.includes(name)));
  compare(kept, meant, REORDERED, 'gates', 'the model without the branches whose gates are closed');
}

function checkAnnotated(bytes: Uint8Array, feeds: Values, original: Values): void {
  const model = openModelBytes(bytes, '.');
  runPipeline(model, parsePipeline('annotate-tensor-parallel', registry));
  compare(evaluateRenamed(referenceBytes(model, '.'), feeds, []), original, 0, 'annotations', 'the original');
}
