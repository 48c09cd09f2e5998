/** The errors that the api can raise. */
import { catalogue } from '../../ir/diagnostic.js';

/** What the two checks of a result compare. */
const SIDES = {
  algebra: 'fused and unfused outputs',
  rank: 'the ranks together and the original',
} as const;

/** The catalogue of this layer. */
export const apiErrors = catalogue({
  nothingCut: {
    code: 'OF_NOTHING_CUT',
    kind: 'model',
    about: 'No attention and no FFN of the model can be cut over so many ranks.',
    remedy: 'try another number of ranks (option tp)',
    message: (why: string) => ({ place: '', text: `no attention and no FFN can be cut over the ranks: ${why}` }),
  },
  ranks: {
    code: 'OF_RANKS',
    kind: 'usage',
    about: 'The folder or its ranks.json is not what onnx-fuse shard writes.',
    remedy: 'give a folder that onnx-fuse shard wrote',
    message: (place: string, why: string) => ({ place, text: why }),
  },
  checkFailed: {
    code: 'OF_CHECK_FAILED',
    kind: 'model',
    about: 'The result was run, and its outputs differ from what they must be by more than rounding.',
    remedy: 'nothing was written; please report this to onnx-fuse, or write it anyway (option force)',
    message: (check: keyof typeof SIDES, found: string, expected: string) => ({
      place: `${check} check`,
      text: `${SIDES[check]} differ by ${found}, expected at most ${expected}`,
    }),
  },
  leavesFolder: {
    code: 'OF_LEAVES_FOLDER',
    kind: 'model',
    about: 'A config or a link in a folder names a file outside of the folder, which is neither read nor written.',
    remedy: 'see where the folder comes from; its files must lie in it',
    message: (place: string, name: string, why: string) => ({ place, text: `'${name}' is not used: ${why}` }),
  },
  nothingFused: {
    code: 'OF_NOTHING_FUSED',
    kind: 'model',
    about: 'Nothing in the model could be fused, and the request says that this is a failure.',
    remedy:
      'make longer runs of layers without attention, leave fewer FFNs at their ends (option keep-last), or do without option require-fusion',
    message: (why: string) => ({ place: '', text: `nothing was fused: ${why}` }),
  },
  config: {
    code: 'OF_CONFIG',
    kind: 'usage',
    about: 'A config file cannot be read, or says something that is no setting.',
    remedy: 'correct the config file',
    message: (place: string, why: string, remedy?: string) => ({ place, text: why, remedy }),
  },
  cannotRecover: {
    code: 'OF_CANNOT_RECOVER',
    kind: 'model',
    about:
      'No linear map can stand in the place of this branch: it does not read the stream through a norm, or is not alone.',
    remedy: 'leave the layer out, or remove it without a map (without option recover)',
    message: (layer: number, part: string) => ({
      place: `layer ${layer}`,
      text: `no map can stand in the place of its ${part}: it does not read the residual stream through a norm of its own, or cannot go`,
    }),
  },
  tooSlow: {
    code: 'OF_TOO_SLOW',
    kind: 'model',
    about: 'No plan that was measured, and that keeps to the budget, is predicted to be as fast as was asked for.',
    remedy: 'ask for less (option target-speedup), or allow more measurements (option max-evaluations)',
    message: (asked: number, fastest: number, isLimited: boolean) => ({
      place: '',
      text: `no plan${isLimited ? ' within the budget' : ''} is predicted to be ${asked} times as fast; the fastest ${isLimited ? 'within it on the text that was searched on' : 'that was measured'} is ${fastest.toFixed(3)} times`,
      remedy: isLimited
        ? 'allow a larger budget (option max-kl, say), or ask for less (option target-speedup)'
        : undefined,
    }),
  },
  plan: {
    code: 'OF_PLAN',
    kind: 'usage',
    about: 'A plan is damaged, says something that cannot be followed, or was made for another model.',
    remedy: 'give a file that onnx-fuse plan wrote, for this model',
    message: (place: string, why: string, remedy?: string) => ({ place, text: why, remedy }),
  },
  evidence: {
    code: 'OF_EVIDENCE',
    kind: 'usage',
    about: 'A file that should go into a report holds no measurement of the right form.',
    remedy: 'give what onnx-fuse verify or bench wrote as JSON',
    message: (place: string, why: string, remedy?: string) => ({ place, text: why, remedy }),
  },
  golden: {
    code: 'OF_GOLDEN',
    kind: 'model',
    about: 'The model is not as recorded, or nothing is recorded yet.',
    remedy: 'record the model as it is now (option accept)',
    message: (place: string, why: string, remedy?: string) => ({ place, text: why, remedy }),
  },
  tokenData: {
    code: 'OF_TOKEN_DATA',
    kind: 'usage',
    about: 'The text or the token ids to measure on cannot be used.',
    remedy: 'give token ids as .jsonl or .npy, or text with a tokenizer.json',
    message: (place: string, why: string, remedy?: string) => ({ place, text: why, remedy }),
  },
  tokenizer: {
    code: 'OF_TOKENIZER',
    kind: 'usage',
    about: 'The tokenizer.json cannot be used.',
    remedy: 'give token ids as .jsonl or .npy instead',
    message: (file: string, why: string) => ({ place: file, text: `it is no usable tokenizer: ${why}` }),
  },
  quality: {
    code: 'OF_QUALITY',
    kind: 'model',
    about: 'The changed model is worse on the text than the limits allow.',
    remedy: 'change fewer layers, or allow more',
    message: (found: string, limit: string) => ({ place: 'quality on text', text: `${found}, the limit is ${limit}` }),
  },
  tolerance: {
    code: 'OF_TOLERANCE',
    kind: 'model',
    about: 'Two models differ by more than was allowed.',
    remedy: 'look at the outputs above, or allow more',
    message: (found: string, limit: string) => ({
      place: 'worst relative error',
      text: `${found}, the limit is ${limit}`,
    }),
  },
  decodeDisagrees: {
    code: 'OF_DECODE',
    kind: 'model',
    about: 'Decoding token by token through the KV cache gives other scores than reading the text at once.',
    remedy: 'do not decode with it; please report this to onnx-fuse if its original agrees',
    message: (file: string, found: string, limit: string) => ({
      place: file,
      text: `scores decoded through the KV cache are ${found} off those of one prefill, expected at most ${limit}`,
    }),
  },
});
