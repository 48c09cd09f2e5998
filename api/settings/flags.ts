/**
 * The flags of `onnx-fuse in out`, as data: the command line, the keys of a config file and its presets all come from
 * this one table, so that a flag added here can be used in all three; and what each asks of a run.
 */

import {
  checkLayers,
  checkRuns,
  DEFAULT_RUN_OPTIONS,
  type LayerSelection,
  parseLayers,
  parseRuns,
} from '../../passes/index.js';
import { parseByteSize } from '../basics/byte-size.js';
import { type LayerPart, readLayers, readList } from '../fuse/layer-choice.js';
import type { FuseRequest } from '../fuse/request.js';

/** One flag of the main command. */
export interface Flag {
  /**
   * `layers`: layer numbers, or a file that chooses them; `runs`: lists of layer numbers; both are written as text.
   * `paths`: one path or several.
   */
  readonly type: 'string' | 'number' | 'boolean' | 'layers' | 'runs' | 'paths';
  readonly describe: string;
  readonly choices?: readonly string[];
  /** Of `layers`: what those that are chosen lose. */
  readonly part?: LayerPart;
  /** What holds when neither the command line nor a config file says anything. */
  readonly fallback?: string | number | boolean;
  /** Makes up the default pipeline, so that it means nothing beside `pipeline`. */
  readonly shapes?: true;
}

/** Every flag of the main command, by name. */
export const FUSE_FLAGS = {
  plan: { type: 'string', shapes: true, describe: 'Apply the plan in this file, which onnx-fuse plan wrote' },
  'remove-attention': {
    type: 'layers',
    part: 'attention',
    shapes: true,
    describe: 'Remove the attention of these layers first: 4-9,12, or a file that says which (see README)',
  },
  'remove-ffn': {
    type: 'layers',
    part: 'ffn',
    shapes: true,
    describe: 'Remove the FFNs of these layers, given in the same ways',
  },
  recover: {
    type: 'boolean',
    shapes: true,
    describe: 'Put linear maps in the place of what is removed, fitted front to back on text',
  },
  data: {
    type: 'paths',
    describe:
      'Fit and judge maps on this text or these token ids: .jsonl, .npy, or any text [the model writes its own]',
  },
  'held-out': { type: 'string', describe: 'Judge maps on this text instead of the last fifth of the other' },
  tokenizer: { type: 'string', describe: 'Read text with this tokenizer.json [the one beside the model]' },
  length: { type: 'number', describe: 'Cut the text into sequences of this many tokens [256]' },
  'max-tokens': { type: 'number', describe: 'Use at most this many tokens of each text [65536]' },
  fuse: {
    type: 'boolean',
    fallback: true,
    shapes: true,
    describe: 'Fuse FFNs; without this only what is named is removed or recovered',
  },
  runs: {
    type: 'runs',
    shapes: true,
    describe: 'Fuse exactly these runs: 42-50,53-69; write 2-3+5-6 for a run over a gap in the numbers',
  },
  'keep-last': {
    type: 'number',
    shapes: true,
    describe: `Leave this many FFNs at the end of each run as they are [${DEFAULT_RUN_OPTIONS.keepLast}]`,
  },
  'max-width': {
    type: 'number',
    shapes: true,
    describe: 'Make no fused FFN wider than this; longer runs are split [no limit]',
  },
  lead: { type: 'boolean', shapes: true, describe: 'Also fuse the FFN just before each run, whose attention stays' },
  norm: {
    type: 'string',
    choices: ['fold', 'last'],
    shapes: true,
    describe: "Fold each FFN's own norm into its weights (exact), or use the last FFN's norm for all [fold]",
  },
  'parallel-only': {
    type: 'boolean',
    shapes: true,
    describe: 'Let FFNs read one input also where they cannot become one, which changes the model and saves no work',
  },
  'parallelize-blocks': {
    type: 'runs',
    shapes: true,
    describe:
      'Let the whole blocks (attention and FFN) of each of these windows read one input, and merge them: 38-41,45-48',
  },
  'block-form': {
    type: 'string',
    choices: ['two-stage', 'literal'],
    shapes: true,
    describe:
      'Let the FFNs of a window read the sum of its attentions, or each its own attention without merging [two-stage]',
  },
  'kv-caches': {
    type: 'string',
    choices: ['merged', 'separate'],
    shapes: true,
    describe: 'Give attentions that became one a common cache, or leave each its own [merged; separate for genai]',
  },
  'kv-naming': {
    type: 'string',
    choices: ['preserve', 'compact'],
    shapes: true,
    describe:
      'Keep the numbers of the KV caches that are left, or renumber them 0..n-1 [preserve; for a folder, what genai needs]',
  },
  'block-configs': {
    type: 'string',
    describe: 'Write the new architecture to this file, as block_configs (a folder gets it anyway)',
  },
  'keep-going': {
    type: 'boolean',
    shapes: true,
    describe: 'Leave out what cannot be done for a layer named above, and say so, instead of stopping',
  },
  requantize: {
    type: 'boolean',
    shapes: true,
    describe: 'Also fold norms into block-quantised weights, which are quantised again (this changes their numbers)',
  },
  'strip-metadata': {
    type: 'boolean',
    shapes: true,
    describe: 'Take out stack traces, doc strings and source paths that the exporter left',
  },
  pipeline: { type: 'string', describe: 'Run these passes instead of the usual ones; "" copies the model' },
  verify: { type: 'boolean', fallback: true, describe: 'Check the result with onnxruntime before it is written' },
  force: { type: 'boolean', fallback: false, describe: 'Write the result even when the check fails' },
  'require-fusion': { type: 'boolean', fallback: false, describe: 'Exit with 1 when nothing was fused' },
  external: {
    type: 'boolean',
    describe: 'Put the weights into a data file beside the model [as the input]',
  },
  'max-shard-size': {
    type: 'string',
    describe: 'Make no data file larger than this, like 5GB; no tensor is split [no limit]',
  },
  'dry-run': { type: 'boolean', fallback: false, describe: 'Say what would be done, and write nothing' },
  report: { type: 'string', describe: 'Write a report as JSON to this file' },
  prompt: { type: 'string', describe: 'Let the model continue this text, before and after' },
  tokens: { type: 'number', fallback: 120, describe: 'Continue the text by this many tokens' },
  quiet: { type: 'boolean', fallback: false, describe: 'Print nothing but errors' },
} as const satisfies Readonly<Record<string, Flag>>;

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

/** The flags as yargs declares options. Defaults are only described: what is absent may still come from a config file. */
export function yargsOptions(): Record<
  string,
  { type: 'string' | 'number' | 'boolean'; describe: string; choices?: readonly string[] }
> {
  const entries = Object.entries<Flag>(FUSE_FLAGS).map(([name, { type, describe, choices, fallback }]) => [
    name,
    {
      type: type === 'layers' || type === 'runs' || type === 'paths' ? 'string' : type,
      describe,
      ...(choices ? { choices } : {}),
      ...(fallback === undefined ? {} : { defaultDescription: String(fallback) }),
    },
  ]);
  return Object.fromEntries(entries);
}

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

/** What the flags ask of a run. `plan`, `block-configs`, `prompt` and `tokens` are for whoever runs it. */
export function requestOf(flags: FlagValues): Omit<FuseRequest, 'input' | 'output'> {
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
    maxShardBytes: size === undefined ? undefined : parseByteSize(size, 'option max-shard-size'),
    hash: flags.report !== undefined,
  };
}
