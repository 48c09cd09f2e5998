/**
 * The flags of `onnx-fuse in out`, as data: the command line, the keys of a config file and its presets all come from
 * this one table, so that a flag added here can be used in all three. What each asks of a run is in flag-values.ts: help
 * loads this file and nothing of that.
 */
import { DEFAULT_RUN_OPTIONS } from '../../passes/analysis/plans/run-options.js';
import type { LayerPart } from '../fuse/layer-choice.js';
import { type FlagGroup, grouped } from './flag-groups.js';

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
  /** One letter that means the same on a command line. */
  readonly alias?: string;
  /** The heading in help. */
  readonly group?: FlagGroup;
  /** What holds when neither the command line nor a config file says anything. */
  readonly fallback?: string | number | boolean;
  /** Makes up the default pipeline, so that it means nothing beside `pipeline`. */
  readonly shapes?: true;
}

/** Every flag of the main command, by name. */
export const FUSE_FLAGS = {
  ...grouped('Layers', {
    plan: { type: 'string', shapes: true, describe: 'Apply the plan in this file, which onnx-fuse plan wrote' },
    'remove-attention': {
      type: 'layers',
      part: 'attention',
      shapes: true,
      describe: 'Remove the attention of these layers first: 4-9,12, or a file that says which (docs/plan.md)',
    },
    'remove-ffn': {
      type: 'layers',
      part: 'ffn',
      shapes: true,
      describe: 'Remove the FFNs of these layers, given in the same ways',
    },
    'keep-going': {
      type: 'boolean',
      shapes: true,
      describe: 'Leave out what cannot be done for a layer named above, and say so, instead of stopping',
    },
  }),
  ...grouped('Text and quality', {
    recover: {
      type: 'boolean',
      shapes: true,
      describe: 'Put linear maps in the place of what is removed, fitted front to back on text',
    },
    'quantize-maps': {
      type: 'string',
      choices: ['4', '8'],
      describe: 'Store fitted maps in blocks of so many bits, for MatMulNBits [in the type of the activations]',
    },
    'map-rank': {
      type: 'number',
      describe: 'Fit maps of this rank, as two matrices, where a whole one is too much [one whole matrix]',
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
    prompt: { type: 'string', describe: 'Let the model continue this text, before and after' },
    tokens: { type: 'number', fallback: 120, describe: 'Continue the text by this many tokens' },
  }),
  ...grouped('Fusing', {
    fuse: {
      type: 'boolean',
      fallback: true,
      shapes: true,
      describe: 'Fuse FFNs, as is done by default; when switched off, only what is named is removed or recovered',
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
    requantize: {
      type: 'boolean',
      shapes: true,
      describe: 'Also fold norms into block-quantised weights, which are quantised again (this changes their numbers)',
    },
    pipeline: { type: 'string', describe: 'Run these passes instead of the usual ones; "" copies the model' },
  }),
  ...grouped('Speed', {
    device: {
      type: 'string',
      describe:
        'Predict the time of a token, before and after, for this device: h100x8, or a JSON file [that of the plan]',
    },
  }),
  ...grouped('Running', {
    verify: { type: 'boolean', fallback: true, describe: 'Check the result with onnxruntime before it is written' },
    force: { type: 'boolean', fallback: false, describe: 'Write the result even when the check fails' },
    'require-fusion': { type: 'boolean', fallback: false, describe: 'Exit with 1 when nothing was fused' },
    'dry-run': { type: 'boolean', fallback: false, describe: 'Say what would be done, and write nothing' },
  }),
  ...grouped('Output', {
    external: {
      type: 'boolean',
      describe: 'Put the weights into a data file beside the model [as the input]',
    },
    'share-weights': {
      type: 'boolean',
      describe:
        "Write only weights that are new, and name the input's files for all others: the output lies beside them, and needs them",
    },
    'max-shard-size': {
      type: 'string',
      describe: 'Make no data file larger than this, like 5GB; no tensor is split [no limit]',
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
    'strip-metadata': {
      type: 'boolean',
      shapes: true,
      describe: 'Take out stack traces, doc strings and source paths that the exporter left',
    },
    report: { type: 'string', describe: 'Write a report as JSON to this file' },
    quiet: { type: 'boolean', alias: 'q', fallback: false, describe: 'Print nothing but errors' },
  }),
} as const satisfies Readonly<Record<string, Flag>>;
