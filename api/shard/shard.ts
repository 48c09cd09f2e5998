/** A model for each rank of a group, checked together. */
import { mkdir } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import {
  bitsOf,
  commitFiles,
  errors,
  type Model,
  openModel,
  removeTemporary,
  stageModel,
  temporaryFor,
} from '../../ir/index.js';
import {
  type Collective,
  factsOf,
  runPipeline,
  type ShardFacts,
  type ShardOptions,
  shardSteps,
  shardTensorParallel,
} from '../../passes/index.js';
import {
  type Device,
  isRuntimeAvailable,
  predictSecondsPerToken,
  readSignature,
  tensorsOf,
  weightBytes,
  workOf,
} from '../../runtime/index.js';
import { runtimeErrors } from '../../runtime/session/errors.js';
import { apiErrors } from '../basics/errors.js';
import { packageVersion } from '../basics/package-version.js';
import { silent, type Talk } from '../basics/progress.js';
import { writeJson } from '../basics/small-file.js';
import { checkPaths } from '../folder/folder.js';
import { modelFile } from '../folder/model-folder.js';
import { keptPipeline, stampProvenance } from '../fuse/provenance.js';
import { deviceOf } from '../plan/device.js';
import { specialIds } from '../tokens/own-text.js';
import { BYTE_VOCABULARY } from '../tokens/text-codec.js';
import type { Chain } from './chain-file.js';
import { type Companion, copyCompanions, rankCompanions } from './companions.js';
import { compareRanks, ranksIn } from './rank-check.js';
import { RANKS_FILE, type RankBytes, type RankFiles, type RanksFile, rankModelName } from './ranks-file.js';
import { type WrittenSegments, writeSegments } from './segment-files.js';

/** What to cut, how, and where to. */
export interface CutRequest extends ShardOptions {
  readonly input: string;
  readonly output: string;
  /** Name or file of the device to predict for. */
  readonly device?: string | undefined;
  readonly verify: boolean;
  readonly force: boolean;
  readonly talk?: Talk | undefined;
}

/** The check of the ranks together; `skipped` says why there was none. */
export interface RankCheck {
  readonly maxRelative: number;
  readonly tolerance: number;
  readonly precision: string;
  readonly positions: number;
  readonly notes: readonly string[];
}

/** What a token of one sequence costs a rank. */
export interface TokenCost {
  readonly allReduces: number;
  readonly allGathers: number;
  /** Bytes that a rank sends, by ring algorithms: 2 (n - 1) / n of what is summed, (n - 1) / n of what is gathered. */
  readonly wireBytes: number;
  /** Weights that rank 0 reads. */
  readonly weightBytes: number;
  /** Attentions and FFNs. */
  readonly subBlocks: number;
  /** Predicted, not measured; null without a device. */
  readonly seconds: number | null;
  readonly device: string | null;
}

/** What was cut, and what it costs. */
export interface ShardReport extends RanksFile {
  readonly token: TokenCost;
  readonly check: RankCheck | null;
  readonly skipped: string | null;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly peakRssBytes: number;
}

/**
 * Writes a folder with a model for each rank, their weights, and ranks.json. Nothing appears unless everything succeeded.
 * @throws Diagnostic OF_NOTHING_CUT, OF_CHECK_FAILED, OF_USAGE, and what reading and writing throw.
 */
export async function shardModel(request: CutRequest): Promise<ShardReport> {
  const talk = request.talk ?? silent;
  const input = modelFile(request.input);
  const output = resolve(request.output);
  const original = openModel(input);
  const device = request.device === undefined ? null : deviceOf(request.device);
  if (device && device.ranks !== request.ranks) {
    const why = `${device.name} is ${device.ranks} ranks, option tp says ${request.ranks}`;
    throw errors.usage(
      'option device',
      why,
      'choose a device of as many ranks: its constants hold for no other number',
    );
  }
  checkPaths(input, output, RANKS_FILE);
  const staging = temporaryFor(output);
  const content = join(staging, basename(output));
  try {
    const first = await rankModel(input, request, 0);
    await mkdir(content, { recursive: true });
    const isExternal = request.style === 'external';
    const companions = rankCompanions(request.input, input, isExternal);
    await copyCompanions(companions, content);
    const words = wordsOf(input, companions);
    const files: RankFiles[] = [];
    const bytes = { read: 0, written: 0 };
    let chain: Chain | undefined;
    for (let rank = 0; rank < request.ranks; rank++) {
      const { model } = rank === 0 ? first : await rankModel(input, request, rank);
      const phase = `writing rank ${rank}`;
      const onProgress = (done: number, total: number) => talk.progress(phase, done, total, 'bytes');
      const write = isExternal
        ? writeSegments(model, content, rank, words, onProgress)
        : writeRank(model, content, rank, onProgress);
      const written = await write;
      bytes.read += written.bytesRead;
      bytes.written += written.bytesWritten;
      if (written.chain) chain = agreed(chain, written.chain, written.files.model);
      files.push({ rank, ...written.files, weights: bytesOf(model, original) });
    }
    const facts = await ranksFile(request, input, original, first.facts, files, companions, chain);
    await writeJson(join(content, RANKS_FILE), facts);
    const token = tokenCost(first.model, first.facts, request.ranks, device);
    const { check, skipped } = await checked(request, input, content, facts, talk);
    await commitFiles(staging, output, [basename(output)]);
    const peakRssBytes = process.resourceUsage().maxRSS * 1024;
    return { ...facts, token, check, skipped, bytesRead: bytes.read, bytesWritten: bytes.written, peakRssBytes };
  } finally {
    talk.done();
    await removeTemporary(staging);
  }
}

/** Writes the model of a rank in one piece, with its data beside it. */
async function writeRank(
  model: Model,
  content: string,
  rank: number,
  onProgress: (done: number, total: number) => void,
): Promise<Omit<WrittenSegments, 'chain'> & { readonly chain?: undefined }> {
  const name = rankModelName(rank);
  const staged = await stageModel(model, join(content, name), { onProgress });
  await staged.commit();
  const data = staged.files.map(({ path }) => basename(path)).filter((file) => file !== name);
  return { files: { model: name, data }, bytesRead: staged.bytesRead, bytesWritten: staged.bytesWritten };
}

/** Ranks that would not come to the same collectives would wait for one another for ever. */
function agreed(known: Chain | undefined, found: Chain, place: string): Chain {
  if (known !== undefined && JSON.stringify(known) !== JSON.stringify(found)) {
    throw runtimeErrors.notComparable(place, 'its segments are not those of rank 0');
  }
  return found;
}

/** How the ranks turn text into tokens, and which of them end it. */
function wordsOf(input: string, companions: readonly Companion[]): Pick<Chain, 'text' | 'ends'> {
  const { vocabulary } = readSignature(openModel(input));
  const tokenizer = companions.find(({ to }) => basename(to) === 'tokenizer.json')?.to;
  const text = tokenizer ?? (vocabulary === BYTE_VOCABULARY ? 'bytes' : null);
  return { text, ends: [...specialIds(input, vocabulary).ends] };
}

/** A rank's model, which says itself how it was made. */
async function rankModel(
  input: string,
  request: CutRequest,
  rank: number,
): Promise<{ model: Model; facts: ShardFacts }> {
  const model = openModel(input);
  const steps = shardSteps(request, rank);
  const result = runPipeline(model, steps);
  const [facts] = factsOf(result, shardTensorParallel);
  const cut = facts?.branches.filter(({ reason }) => reason === null).length ?? 0;
  if (!facts || cut === 0) {
    const why = facts?.branches[0]?.reason ?? result.left[0]?.message ?? 'it has none';
    throw apiErrors.nothingCut(why);
  }
  await stampProvenance(model, await keptPipeline(steps));
  return { model, facts };
}

/** Bytes of a rank's weights: what the original has too is replicated, everything else is a share. */
function bytesOf(model: Model, original: Model): RankBytes {
  const whole = new Set([...tensorsOf(original)].map(({ weight }) => weight?.key));
  const seen = new Set<string>();
  let [sharded, replicated, padding] = [0, 0, 0];
  for (const { weight } of tensorsOf(model)) {
    if (!weight || seen.has(weight.key)) continue;
    seen.add(weight.key);
    if (whole.has(weight.key)) replicated += weight.byteLength;
    else {
      sharded += weight.byteLength;
      if (weight.op === 'concat') {
        for (const part of weight.parts) if (part.op === 'inline') padding += part.byteLength;
      }
    }
  }
  return { sharded, replicated, padding };
}

/** Counts and, with a device, predicts what a token costs. */
export function tokenCost(model: Model, facts: ShardFacts, ranks: number, device: Device | null): TokenCost {
  const { collectives } = facts;
  const count = (kind: Collective['kind']): number => collectives.filter((each) => each.kind === kind).length;
  const share = (ranks - 1) / ranks;
  const wireBytes = collectives.reduce((sum, { kind, width, dtype }) => {
    const bytes = (width * bitsOf(dtype)) / 8;
    return sum + (kind === 'all-reduce' ? 2 * share * bytes : share * bytes * ranks);
  }, 0);
  const { weightBytes: bytes } = workOf(model);
  const subBlocks = facts.branches.length;
  const attentions = facts.branches.filter(({ role }) => role === 'attention').length;
  const work = { weightBytes: bytes * ranks, attentions, ffns: subBlocks - attentions, linears: 0 };
  const seconds = device && predictSecondsPerToken(work, device);
  const [allReduces, allGathers] = [count('all-reduce'), count('all-gather')];
  return { allReduces, allGathers, wireBytes, weightBytes: bytes, subBlocks, seconds, device: device?.name ?? null };
}

async function ranksFile(
  { ranks, style }: CutRequest,
  input: string,
  original: Model,
  { caches, collectives, branches, vocabularyReason }: ShardFacts,
  rankFiles: readonly RankFiles[],
  companions: readonly Companion[],
  chain: Chain | undefined,
): Promise<RanksFile> {
  const own = rankFiles.flatMap(({ model, data, sums }) => sums?.map(({ file }) => file) ?? [model, ...data]);
  const files = [...own, ...companions.map(({ to }) => to), RANKS_FILE].sort();
  return {
    kind: 'onnx-fuse ranks',
    version: 1,
    onnx_fuse: { version: await packageVersion(), files },
    original: { file: basename(input), weightBytes: weightBytes(original) },
    ranks,
    style,
    rankFiles,
    caches,
    collectives,
    branches,
    cutsVocabulary: vocabularyReason === null,
    vocabularyReason,
    ...(chain ? { chain } : {}),
  };
}

async function checked(
  request: CutRequest,
  input: string,
  folder: string,
  facts: RanksFile,
  talk: Talk,
): Promise<Pick<ShardReport, 'check' | 'skipped'>> {
  if (!request.verify) return { check: null, skipped: 'switched off (option verify)' };
  if (!(await isRuntimeAvailable())) {
    return { check: null, skipped: 'onnxruntime-node is not installed (npm install onnxruntime-node)' };
  }
  const found = await compareRanks(input, folder, ranksIn(folder, facts), talk, async () => null);
  if (typeof found === 'string') return { check: null, skipped: found };
  const { comparison, tolerance, notes } = found;
  const { relative } = comparison.worst;
  if (!(relative <= tolerance.relative) && !request.force) {
    throw apiErrors.checkFailed('rank', relative.toExponential(2), String(tolerance.relative));
  }
  const { precision, relative: limit } = tolerance;
  const check = { maxRelative: relative, tolerance: limit, precision, positions: comparison.positions, notes };
  return { check, skipped: null };
}
