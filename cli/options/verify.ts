/** What `onnx-fuse verify` takes. */
import { grouped } from '../../api/settings/flag-groups.js';
import { PROVIDER_FLAGS, RESULT_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const verifySpec = commandSpec({
  name: 'verify',
  summary: 'Run both models with onnxruntime on the same inputs and compare',
  words: [
    { name: 'a', describe: 'The reference (.onnx), or a folder with one' },
    { name: 'b', describe: 'The model to judge, likewise, or a folder of onnx-fuse shard' },
  ],
  flags: {
    ...grouped('Budget', {
      tolerance: { type: 'number', describe: 'Exit with 1 when the relative error is larger than this' },
      'max-kl': {
        type: 'number',
        needs: 'data',
        describe: 'Exit with 1 when the mean KL on --data is larger than this',
      },
      'max-ppl-increase': {
        type: 'number',
        needs: 'data',
        describe: 'Exit with 1 when perplexity grows by a larger share than this, up to 1: 0.05 is 5 %',
      },
      'min-top1': {
        type: 'number',
        needs: 'data',
        describe: 'Exit with 1 when the top token agrees at a smaller share of positions',
      },
    }),
    ...grouped('Text and quality', {
      data: { type: 'string', describe: 'Also measure on this text: .jsonl or .npy of token ids, or text' },
      length: { type: 'number', describe: 'Cut --data into sequences of this many tokens [256]' },
      'max-tokens': { type: 'number', describe: 'Read at most this many tokens of --data [65536]' },
      tokenizer: { type: 'string', describe: 'Read text with this tokenizer.json [the one beside <a>]' },
      prompt: { type: 'string', describe: 'Let both models continue this text [the first rows of --data]' },
      generate: { type: 'number', describe: 'Let both continue it by this many tokens; 0 for none [48]' },
    }),
    ...grouped('Running', {
      timing: {
        type: 'boolean',
        fallback: true,
        describe: 'With --data, also time a token of both, for what <b> is worth as a draft for <a>',
      },
    }),
    ...PROVIDER_FLAGS,
    ...RESULT_FLAGS,
  },
  examples: [
    {
      about: 'what a change costs on text that nothing was fitted on',
      line: 'verify smol smol-fused --data heldout.txt --max-kl 0.05',
    },
    { about: 'whether two models compute the same', line: 'verify a.onnx b.onnx --tolerance 1e-4' },
  ],
});
