/** What `onnx-fuse verify` takes. */
import { JSON_FLAG, PROVIDER_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const verifySpec = commandSpec({
  name: 'verify',
  summary: 'Run both models with onnxruntime on the same inputs and compare',
  words: [
    { name: 'a', describe: 'The reference (.onnx), or a folder with one' },
    { name: 'b', describe: 'The model to judge, likewise, or a folder of onnx-fuse shard' },
  ],
  flags: {
    tolerance: { type: 'number', describe: 'Exit with 1 when the relative error is larger than this' },
    data: { type: 'string', describe: 'Also measure on this text: .jsonl or .npy of token ids, or text' },
    length: { type: 'number', describe: 'Cut --data into sequences of this many tokens [256]' },
    'max-tokens': { type: 'number', describe: 'Read at most this many tokens of --data [65536]' },
    tokenizer: { type: 'string', describe: 'Read text with this tokenizer.json [the one beside <a>]' },
    'max-kl': {
      type: 'number',
      needs: 'data',
      describe: 'Exit with 1 when the mean KL on --data is larger than this',
    },
    'max-ppl-increase': {
      type: 'number',
      needs: 'data',
      describe: 'Exit with 1 when perplexity grows by a larger share than this',
    },
    'min-top1': {
      type: 'number',
      needs: 'data',
      describe: 'Exit with 1 when the top token agrees at a smaller share of positions',
    },
    prompt: { type: 'string', describe: 'Let both models continue this text [the first rows of --data]' },
    generate: { type: 'number', describe: 'Let both continue it by this many tokens; 0 for none [48]' },
    timing: {
      type: 'boolean',
      fallback: true,
      describe: 'With --data, also time a token of both, for what <b> is worth as a draft for <a>',
    },
    ...PROVIDER_FLAGS,
    json: JSON_FLAG,
    quiet: { type: 'boolean', fallback: false, describe: 'Print nothing but the result' },
  },
});
