/** What `onnx-fuse plan` takes. */
import { grouped } from '../../api/settings/flag-groups.js';
import { DEFAULT_RUN_OPTIONS } from '../../passes/analysis/plans/run-options.js';
import { RESULT_FLAGS, SPEED_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const planSpec = commandSpec({
  name: 'plan',
  summary:
    'Choose what becomes of each layer: measure plans on text, take the fastest within a budget or the best at a speed',
  words: [{ name: 'model', describe: 'The model (.onnx), or a folder with one' }],
  flags: {
    ...grouped('Budget', {
      'max-kl': {
        type: 'number',
        describe: 'Allow at most this KL(original || changed), in nats per token on average',
      },
      'max-ppl-increase': {
        type: 'number',
        describe: 'Allow perplexity to grow by at most this share, up to 1: 0.05 is 5 %',
      },
      'min-top1': {
        type: 'number',
        describe: "Keep the original's top token at this share of positions at least",
      },
      'target-speedup': {
        type: 'number',
        describe: 'Look for the best plan that is predicted to be this many times as fast, instead of the fastest',
      },
    }),
    ...grouped('Layers', {
      'remove-attention': {
        type: 'string',
        describe: 'Do not search, but measure the plan in which the attention of these layers goes',
      },
      fuse: {
        type: 'string',
        choices: ['auto', 'always', 'never'],
        fallback: 'auto',
        describe: 'Fuse FFNs where the device gains by it, wherever they become consecutive, or never',
      },
      'keep-last': {
        type: 'number',
        fallback: DEFAULT_RUN_OPTIONS.keepLast,
        describe: 'Leave this many FFNs at the end of each run as they are',
      },
      lead: { type: 'boolean', fallback: false, describe: 'Also fuse the FFN just before each run' },
    }),
    ...grouped('Text and quality', {
      data: {
        type: 'string',
        repeats: true,
        describe:
          'Fit and measure on this text or these token ids: .jsonl, .npy, or any text; may be given again [the model writes its own]',
      },
      'held-out': {
        type: 'string',
        describe: 'Check the choice on this text instead of the end of --data',
      },
      tokenizer: {
        type: 'string',
        describe: 'Read text with this tokenizer.json [the one beside the model]',
      },
      length: { type: 'number', describe: 'Cut the data into sequences of this many tokens [256]' },
      'max-tokens': {
        type: 'number',
        describe: 'Use at most this many tokens of the data, and of the held-out text [65536]',
      },
      temperature: { type: 'number', describe: 'Temperature of text that the model writes itself [0.9]' },
      seed: { type: 'number', describe: 'Seed of text that the model writes itself [1]' },
      recover: {
        type: 'boolean',
        fallback: true,
        describe: 'Let linear maps stand where branches were; --no-recover only removes',
      },
      'quantize-maps': {
        type: 'string',
        choices: ['4', '8'],
        describe: 'Store maps in blocks of so many bits, for MatMulNBits [in the type of the activations]',
      },
      'map-rank': {
        type: 'number',
        describe: 'Fit maps of this rank, as two matrices, where a whole one is too much [one whole matrix]',
      },
    }),
    ...grouped('Speed', {
      'optimize-for': {
        type: 'string',
        choices: ['decode', 'prompt', 'both'],
        fallback: 'both',
        describe: 'Make tokens fast, or prompts of 128; both: tokens, fusing only what makes prompts no slower',
      },
      device: {
        type: 'string',
        describe: 'Predict speed for this device: h100x8, or a JSON file [this machine, measured]',
      },
      measure: {
        type: 'boolean',
        fallback: false,
        describe: 'Also measure the speed of the chosen plan, beside the original',
      },
      batch: { type: 'number', describe: 'Measure the speed of this many sequences together [1]' },
    }),
    ...SPEED_FLAGS,
    ...grouped('Running', {
      'max-evaluations': { type: 'number', fallback: 40, describe: 'Measure at most this many plans' },
      scores: {
        type: 'string',
        choices: ['needed', 'all'],
        fallback: 'needed',
        describe: 'Measure what the search needs, or also how blocks depend on each other (for the page)',
      },
      random: {
        type: 'number',
        fallback: 0,
        describe: 'Also measure this many random plans of the same size, for comparison',
      },
      ablate: {
        type: 'boolean',
        fallback: false,
        describe: 'Also measure the plan in the ways of the paper',
      },
      provider: {
        type: 'string',
        choices: ['cpu', 'cuda', 'webgpu'],
        fallback: 'cpu',
        describe: 'Run on this provider',
      },
      threads: { type: 'number', describe: 'Run with this many threads [as onnxruntime chooses]' },
    }),
    ...grouped('Output', {
      output: {
        alias: 'o',
        type: 'string',
        fallback: 'plan.json',
        describe: 'Write the plan to this file',
      },
      report: {
        type: 'string',
        describe: 'Also draw the plan and its evidence on this HTML page',
      },
    }),
    ...RESULT_FLAGS,
  },
  needsOneOf: {
    flags: ['max-kl', 'max-ppl-increase', 'min-top1', 'target-speedup', 'remove-attention'],
    why: 'there is neither a budget nor a speed to reach, and without one everything may go',
    remedy: 'give a limit (--max-kl), 0.05 say, or a speed (--target-speedup)',
  },
  examples: [
    {
      about: 'choose the fastest plan within a budget, on your own text',
      line: 'plan smol -o plan.json --data calib.txt --max-kl 0.05',
    },
    {
      about: 'reach a speed at the least cost, without any text',
      line: 'plan smol -o plan.json --target-speedup 1.25',
    },
    { about: 'then apply it', line: 'smol smol-fused --plan plan.json' },
  ],
});
