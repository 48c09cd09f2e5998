/**
 * Every error a user can cause, as data: a code, the place, what was found, what was expected, and the remedy.
 * Call sites use the factories below and never build message strings of their own.
 */

/** Who has to act: the model is wrong, the command line is wrong, or the machine failed us. */
export type DiagnosticKind = 'model' | 'usage' | 'system';

/** A user's mistake or a bad file. The command line prints `message` alone, never a stack trace. */
export class Diagnostic extends Error {
  constructor(
    readonly code: string,
    readonly kind: DiagnosticKind,
    readonly place: string,
    /** What was found and expected, without place and remedy. */
    readonly text: string,
    readonly remedy: string,
  ) {
    super(`${code} ${place ? `${place}: ` : ''}${text}; ${remedy}`);
    this.name = 'Diagnostic';
  }
}

const model = (code: string, place: string, text: string, remedy: string) =>
  new Diagnostic(code, 'model', place, text, remedy);
const usage = (code: string, place: string, text: string, remedy: string) =>
  new Diagnostic(code, 'usage', place, text, remedy);
const system = (code: string, place: string, text: string, remedy: string) =>
  new Diagnostic(code, 'system', place, text, remedy);

/** The catalogue. Codes are stable: scripts match on them. */
export const errors = {
  notOnnx: (file: string, why: string) =>
    model('OF_NOT_ONNX', file, `not an ONNX model: ${why}`, 'give the path of a .onnx file'),
  truncated: (file: string, at: number, need: number, have: number) =>
    model(
      'OF_TRUNCATED',
      file,
      `the file ends early: ${need} bytes expected at offset ${at}, found ${have}`,
      'copy or download it again',
    ),
  badWire: (place: string, why: string) =>
    model('OF_BAD_WIRE', place, `malformed protobuf: ${why}`, 'export or download the model again'),
  tooDeep: (place: string, limit: number) =>
    model('OF_TOO_DEEP', place, `graphs nested deeper than ${limit}`, 'this is not a model any exporter writes'),
  missingField: (place: string, field: string) =>
    model('OF_MISSING_FIELD', place, `required field ${field} is absent`, 'export the model again'),
  unsafeInteger: (place: string, found: string) =>
    model(
      'OF_UNSAFE_INTEGER',
      place,
      `expected an integer below 2^53, found ${found}`,
      'the file is damaged or hostile; export it again',
    ),
  cycle: (place: string) =>
    model('OF_CYCLE', place, 'the graph has a cycle: this node depends on its own output', 'export the model again'),
  duplicateName: (place: string, name: string) =>
    model('OF_DUPLICATE_NAME', place, `the value '${name}' is defined twice`, 'export the model again'),
  undefinedValue: (place: string, name: string) =>
    model('OF_UNDEFINED_VALUE', place, `reads the value '${name}', which nothing defines`, 'export the model again'),
  tensorSize: (tensor: string, found: number, expected: number) =>
    model(
      'OF_TENSOR_SIZE',
      `tensor '${tensor}'`,
      `holds ${found} bytes, its shape and type need ${expected}`,
      'export the model again',
    ),
  externalEscapes: (tensor: string, location: string) =>
    model(
      'OF_EXTERNAL_ESCAPES',
      `tensor '${tensor}'`,
      `external data '${location}' is outside the model's folder`,
      'move the data beside the model and fix the location; onnxruntime refuses such a file too',
    ),
  externalMissing: (tensor: string, file: string) =>
    model(
      'OF_EXTERNAL_MISSING',
      `tensor '${tensor}'`,
      `external data file '${file}' does not exist`,
      'copy the data file beside the model',
    ),
  externalShort: (tensor: string, file: string, need: number, have: number) =>
    model(
      'OF_EXTERNAL_SHORT',
      `tensor '${tensor}'`,
      `external data file '${file}' has ${have} bytes, ${need} are needed`,
      'copy the data file again',
    ),
  externalLength: (tensor: string, found: number, expected: number) =>
    model(
      'OF_EXTERNAL_LENGTH',
      `tensor '${tensor}'`,
      `external length is ${found}, its shape and type need ${expected}`,
      'export the model again',
    ),
  externalEntry: (tensor: string, key: string, value: string) =>
    model(
      'OF_EXTERNAL_ENTRY',
      `tensor '${tensor}'`,
      `external data entry ${key}='${value}' is not usable`,
      'export the model again',
    ),
  invalidGraph: (place: string, why: string) =>
    model('OF_INVALID_GRAPH', place, why, 'this is a bug in the pass named here; please report it'),
  text: (place: string, found: string, expected: string) =>
    model('OF_TEXT', place, `expected ${expected}, found ${found}`, 'correct the text'),
  weightOverflow: (tensor: string, dtype: string) =>
    model(
      'OF_WEIGHT_OVERFLOW',
      `weight '${tensor}'`,
      `folding the norm's gamma makes a value too large for ${dtype}`,
      'fuse with --norm last, or leave the layer out of the run',
    ),
  noSuchFile: (file: string) => usage('OF_NO_SUCH_FILE', file, 'no such file', 'check the path'),
  outputIsInput: (file: string, role: string) =>
    usage(
      'OF_OUTPUT_IS_INPUT',
      file,
      `the output would overwrite ${role}`,
      'write to another path; inputs are never touched',
    ),
  changedUnderfoot: (file: string) =>
    system('OF_CHANGED', file, 'the file changed while it was being read', 'run again once nothing writes to it'),
  readFailed: (file: string, why: string) => system('OF_READ', file, `cannot read: ${why}`, 'check the file and disk'),
  writeFailed: (file: string, why: string) =>
    system('OF_WRITE', file, `cannot write: ${why}`, 'check space and permissions; the old output was left as it was'),
  usage: (place: string, why: string, remedy: string) => usage('OF_USAGE', place, why, remedy),
  noSuchLayer: (layer: number, layers: string) =>
    usage(
      'OF_NO_SUCH_LAYER',
      `layer ${layer}`,
      `the model has no such layer; it has ${layers}`,
      'see onnx-fuse inspect',
    ),
  cannotRemove: (layer: number, reason: string) =>
    model('OF_CANNOT_REMOVE', `layer ${layer}`, `its attention cannot be removed: ${reason}`, 'leave this layer out'),
  cannotRemoveFfn: (layer: number, reason: string) =>
    model('OF_CANNOT_REMOVE', `layer ${layer}`, `its FFN cannot be removed: ${reason}`, 'leave this layer out'),
  unlikeBranches: (pass: string) =>
    model(
      'OF_UNLIKE_BRANCHES',
      `pass ${pass}`,
      'the two decoders under the If do not have the same layers, so they would not compute the same any more',
      'export the decoder without merging',
    ),
  cannotFuse: (layer: string, reason: string) =>
    model('OF_CANNOT_FUSE', `layer ${layer}`, `cannot be in a run: ${reason}`, 'choose other runs'),
  cannotInstrument: (place: string, reason: string) =>
    model('OF_CANNOT_INSTRUMENT', place, `its branches cannot have gates: ${reason}`, 'choose the layers yourself'),
  noRuntime: (why: string) =>
    system('OF_NO_RUNTIME', 'onnxruntime-node', `cannot be loaded: ${why}`, 'npm install onnxruntime-node'),
  noProvider: (provider: string, why: string, remedy = 'use cpu, or install its libraries') =>
    system('OF_NO_PROVIDER', `provider '${provider}'`, `not available: ${why}`, remedy),
  /** `nodes` are op types with counts. */
  providerFallback: (provider: string, model: string, nodes: string) =>
    system(
      'OF_PROVIDER_FALLBACK',
      `provider '${provider}'`,
      `the CPU ran work of ${model} instead: ${nodes}`,
      'use cpu, a provider or an element type with kernels for these, or --allow-fallback',
    ),
  memory: (file: string, need: number, have: number) =>
    system(
      'OF_MEMORY',
      file,
      `running it needs about ${(need / 2 ** 30).toFixed(1)} GiB of memory, ${(have / 2 ** 30).toFixed(1)} are free`,
      'free some, or run it on a larger machine',
    ),
  cannotFeed: (input: string, why: string) =>
    model(
      'OF_CANNOT_FEED',
      `graph input '${input}'`,
      `no value can be made for it: ${why}`,
      '--no-verify skips the check',
    ),
  notComparable: (output: string, why: string) =>
    model('OF_NOT_COMPARABLE', `output '${output}'`, why, 'compare models that share their outputs'),
  runtimeFailed: (place: string, why: string) =>
    system('OF_RUNTIME', place, `onnxruntime failed: ${why}`, 'it cannot be run here; --no-verify fuses it unchecked'),
  nothingCut: (why: string) =>
    model('OF_NOTHING_CUT', '', `no attention and no FFN can be cut over the ranks: ${why}`, 'try another --tp'),
  ranks: (place: string, why: string, remedy = 'give a folder that onnx-fuse shard wrote') =>
    usage('OF_RANKS', place, why, remedy),
  ranksDiffer: (found: string, expected: string) =>
    model(
      'OF_CHECK_FAILED',
      'rank check',
      `the ranks together and the original differ by ${found}, expected at most ${expected}`,
      'nothing was written; --force writes it anyway; please report the model',
    ),
  nothingFused: (why: string) =>
    model('OF_NOTHING_FUSED', '', `nothing was fused: ${why}`, 'drop --require-fusion to accept a plain copy'),
  config: (place: string, why: string, remedy: string) => usage('OF_CONFIG', place, why, remedy),
  plan: (place: string, why: string, remedy: string) => usage('OF_PLAN', place, why, remedy),
  evidence: (place: string, why: string, remedy: string) => usage('OF_EVIDENCE', place, why, remedy),
  plugin: (place: string, why: string, remedy: string) => usage('OF_PLUGIN', place, why, remedy),
  /** `cause` is kept: the command line shows its stack when DEBUG is set. */
  pluginFailed: (pass: string, cause: unknown) => {
    const name = cause instanceof Error && cause.name !== 'Error' ? `${cause.name}: ` : '';
    const text = `threw ${name}${reasonOf(cause)}`;
    const made = system('OF_PLUGIN', `pass ${pass}`, text, 'mend the plugin; DEBUG=1 shows the stack');
    made.cause = cause;
    return made;
  },
  golden: (place: string, why: string, remedy: string) => model('OF_GOLDEN', place, why, remedy),
  tokenData: (place: string, why: string) =>
    usage('OF_TOKEN_DATA', place, why, 'give token ids as .jsonl or .npy, or text with a tokenizer.json'),
  tokenizer: (file: string, why: string) =>
    usage('OF_TOKENIZER', file, `not a usable tokenizer: ${why}`, 'give token ids as .jsonl or .npy instead'),
  quality: (found: string, limit: string) =>
    model('OF_QUALITY', 'quality on text', `${found}, the limit is ${limit}`, 'change fewer layers, or allow more'),
  decodeDisagrees: (file: string, found: string, limit: string) =>
    model(
      'OF_DECODE',
      file,
      `scores decoded through the KV cache are ${found} off those of one prefill, expected at most ${limit}`,
      'do not decode with it; please report the model if its original agrees',
    ),
  checkFailed: (found: string, expected: string) =>
    model(
      'OF_CHECK_FAILED',
      'algebra check',
      `fused and unfused outputs differ by ${found}, expected at most ${expected}`,
      'nothing was written; --force writes it anyway; please report the model',
    ),
};

/** The one-line text of anything thrown, for messages that quote a cause. */
export function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split('\n')[0] ?? text;
}
