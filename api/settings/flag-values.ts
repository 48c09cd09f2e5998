/** What the flags of `onnx-fuse in out` say, wherever they are written, and what that asks of a run. */
import { checkLayers, checkRuns, type LayerSelection, parseLayers, parseRuns } from '../../passes/index.js';
import type { MapBits } from '../../runtime/index.js';
import { parseByteSize } from '../basics/byte-size.js';
import { readLayers, readList } from '../fuse/layer-choice.js';
import { type Flag, FUSE_FLAGS } from './flags.js';

interface TypeOf {
  readonly string: string;
  readonly number: number;
  readonly boolean: boolean;
  readonly layers: LayerSelection;
  readonly runs: readonly (readonly number[])[];
  readonly paths: readonly string[];
}

type ValueOf<F extends Flag> = F extends { readonly choices: readonly (infer Choice)[] } ? Choice : TypeOf[F['type']];

/** What flags say; those that nobody gave are absent. */
export type FlagValues = { -readonly [K in keyof typeof FUSE_FLAGS]?: ValueOf<(typeof FUSE_FLAGS)[K]> | undefined };

/** The flags among arguments; lists of layers are read. `placeOf` says what a flag is called. @throws Diagnostic OF_USAGE, OF_READ. */
export function flagsIn(args: Readonly<Record<string, unknown>>, placeOf: (flag: string) => string): FlagValues {
  const given = Object.entries<Flag>(FUSE_FLAGS).filter(([name]) => args[name] !== undefined);
  return Object.fromEntries(given.map(([name, flag]) => [name, listOf(flag, args[name], placeOf(name))])) as FlagValues;
}

/**
 * The layers or runs that are written at `place`: text, or in a config file a list of numbers, texts and (of runs) lists.
 * What any other flag says stays as it is. @throws Diagnostic OF_USAGE, OF_READ.
 */
export function listOf({ type, part }: Flag, value: unknown, place: string): unknown {
  if (type === 'layers' && part) {
    if (typeof value === 'string') return readLayers(part, value, place);
    return readList(place, 'write numbers like 4-9,12', () => checkLayers(itemsOf(value, parseLayers)));
  }
  if (type === 'paths') return Array.isArray(value) ? value : [value];
  if (type !== 'runs') return value;
  return readList(place, 'write runs like 42-50,53-69', () => checkRuns(itemsOf(value, parseRuns)));
}

/** A text is parsed, and so is every text in a list. */
function itemsOf<T>(value: unknown, parse: (text: string) => readonly T[]): unknown {
  const items = Array.isArray(value) ? value : typeof value === 'object' ? null : [value];
  return items ? items.flatMap((item) => (typeof item === 'string' ? parse(item) : [item])) : value;
}

/**
 * `upper` over `lower`. The pipeline and the flags that make one up are one choice, and so are a plan and the flags that
 * say what a plan says: whichever `upper` gives, wins, and drops the other.
 */
export function mergeFlags(lower: FlagValues, upper: FlagValues): FlagValues {
  const names = Object.keys(upper).filter((name) => upper[name as keyof FlagValues] !== undefined);
  const isDropped = (name: string): boolean =>
    (upper.pipeline !== undefined && isShaping(name)) ||
    (name === 'pipeline' && names.some(isShaping)) ||
    (upper.plan !== undefined && isPlanned(name)) ||
    (name === 'plan' && names.some(isPlanned));
  return { ...Object.fromEntries(Object.entries(lower).filter(([name]) => !isDropped(name))), ...upper };
}

/** A flag that another one given in the same place makes meaningless. */
export interface FlagConflict {
  readonly flag: string;
  /** The other one. */
  readonly beside: 'pipeline' | 'plan';
  readonly remedy: string;
}

/** The first conflict among flags that were given in one place; null when there is none. */
export function conflictIn(flags: FlagValues): FlagConflict | null {
  const given = Object.keys(flags).filter((name) => flags[name as keyof FlagValues] !== undefined);
  const shaping = flags.pipeline === undefined ? undefined : given.find(isShaping);
  if (shaping !== undefined) {
    return { flag: shaping, beside: 'pipeline', remedy: 'keep one, or put it into the pipeline' };
  }
  const planned = flags.plan === undefined ? undefined : given.find(isPlanned);
  return planned === undefined ? null : { flag: planned, beside: 'plan', remedy: 'keep one, or make another plan' };
}

/** What a plan says itself. */
const PLANNED: readonly string[] = [
  'remove-attention',
  'remove-ffn',
  'recover',
  'fuse',
  'runs',
  'keep-last',
  'max-width',
  'lead',
  'norm',
  'parallelize-blocks',
  'block-form',
];

function isPlanned(name: string): boolean {
  return PLANNED.includes(name);
}

function isShaping(name: string): boolean {
  return (FUSE_FLAGS as Readonly<Record<string, Flag>>)[name]?.shapes === true;
}

/** What `quantize-maps` says; null where it is not given. */
export function mapBitsOf(text: '4' | '8' | undefined): MapBits | null {
  return text === undefined ? null : (Number(text) as MapBits);
}

/** What the flags ask of `fuse`; what they say of maps is for `recover`. */
export function requestOf(flags: FlagValues) {
  const size = flags['max-shard-size'];
  return {
    removeAttention: flags['remove-attention'],
    removeFfn: flags['remove-ffn'],
    fuse: flags.fuse,
    kvNaming: flags['kv-naming'],
    runs: flags.runs,
    keepLast: flags['keep-last'],
    maxWidth: flags['max-width'],
    lead: flags.lead,
    parallelOnly: flags['parallel-only'],
    norm: flags.norm,
    parallelizeBlocks: flags['parallelize-blocks'],
    blockForm: flags['block-form'],
    kvCaches: flags['kv-caches'],
    requantize: flags.requantize,
    keepGoing: flags['keep-going'],
    stripMetadata: flags['strip-metadata'],
    pipeline: flags.pipeline,
    verify: flags.verify ?? true,
    force: flags.force ?? false,
    dryRun: flags['dry-run'] ?? false,
    requireFusion: flags['require-fusion'] ?? false,
    external: flags.external,
    shareWeights: flags['share-weights'],
    maxShardBytes: size === undefined ? undefined : parseByteSize(size, 'option max-shard-size'),
    plan: flags.plan,
    device: flags.device,
    report: flags.report,
    blockConfigs: flags['block-configs'],
    prompt: flags.prompt,
    tokens: flags.tokens,
  };
}
