/** The errors that the api can raise. */
import { modelError, usageError } from '../../ir/diagnostic.js';

/** The catalogue of this layer. Codes are stable: scripts match on them. */
export const apiErrors = {
  nothingCut: (why: string) =>
    modelError('OF_NOTHING_CUT', '', `no attention and no FFN can be cut over the ranks: ${why}`, 'try another --tp'),
  ranks: (place: string, why: string, remedy = 'give a folder that onnx-fuse shard wrote') =>
    usageError('OF_RANKS', place, why, remedy),
  ranksDiffer: (found: string, expected: string) =>
    modelError(
      'OF_CHECK_FAILED',
      'rank check',
      `the ranks together and the original differ by ${found}, expected at most ${expected}`,
      'nothing was written; --force writes it anyway; please report the model',
    ),
  nothingFused: (why: string) =>
    modelError('OF_NOTHING_FUSED', '', `nothing was fused: ${why}`, 'drop --require-fusion to accept a plain copy'),
  config: (place: string, why: string, remedy: string) => usageError('OF_CONFIG', place, why, remedy),
  plan: (place: string, why: string, remedy: string) => usageError('OF_PLAN', place, why, remedy),
  evidence: (place: string, why: string, remedy: string) => usageError('OF_EVIDENCE', place, why, remedy),
  golden: (place: string, why: string, remedy: string) => modelError('OF_GOLDEN', place, why, remedy),
  tokenData: (place: string, why: string) =>
    usageError('OF_TOKEN_DATA', place, why, 'give token ids as .jsonl or .npy, or text with a tokenizer.json'),
  tokenizer: (file: string, why: string) =>
    usageError('OF_TOKENIZER', file, `not a usable tokenizer: ${why}`, 'give token ids as .jsonl or .npy instead'),
  quality: (found: string, limit: string) =>
    modelError(
      'OF_QUALITY',
      'quality on text',
      `${found}, the limit is ${limit}`,
      'change fewer layers, or allow more',
    ),
  decodeDisagrees: (file: string, found: string, limit: string) =>
    modelError(
      'OF_DECODE',
      file,
      `scores decoded through the KV cache are ${found} off those of one prefill, expected at most ${limit}`,
      'do not decode with it; please report the model if its original agrees',
    ),
  checkFailed: (found: string, expected: string) =>
    modelError(
      'OF_CHECK_FAILED',
      'algebra check',
      `fused and unfused outputs differ by ${found}, expected at most ${expected}`,
      'nothing was written; --force writes it anyway; please report the model',
    ),
};
