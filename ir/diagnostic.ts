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

/** A Diagnostic about the model. */
export const modelError = (code: string, place: string, text: string, remedy: string) =>
  new Diagnostic(code, 'model', place, text, remedy);
/** A Diagnostic about what the user asked for. */
export const usageError = (code: string, place: string, text: string, remedy: string) =>
  new Diagnostic(code, 'usage', place, text, remedy);
/** A Diagnostic about the machine. */
export const systemError = (code: string, place: string, text: string, remedy: string) =>
  new Diagnostic(code, 'system', place, text, remedy);

/** The catalogue of this layer; passes, runtime and api have their own. Codes are stable: scripts match on them. */
export const errors = {
  notOnnx: (file: string, why: string) =>
    modelError('OF_NOT_ONNX', file, `not an ONNX model: ${why}`, 'give the path of a .onnx file'),
  truncated: (file: string, at: number, need: number, have: number) =>
    modelError(
      'OF_TRUNCATED',
      file,
      `the file ends early: ${need} bytes expected at offset ${at}, found ${have}`,
      'copy or download it again',
    ),
  badWire: (place: string, why: string) =>
    modelError('OF_BAD_WIRE', place, `malformed protobuf: ${why}`, 'export or download the model again'),
  tooDeep: (place: string, limit: number) =>
    modelError('OF_TOO_DEEP', place, `graphs nested deeper than ${limit}`, 'this is not a model any exporter writes'),
  missingField: (place: string, field: string) =>
    modelError('OF_MISSING_FIELD', place, `required field ${field} is absent`, 'export the model again'),
  unsafeInteger: (place: string, found: string) =>
    modelError(
      'OF_UNSAFE_INTEGER',
      place,
      `expected an integer below 2^53, found ${found}`,
      'the file is damaged or hostile; export it again',
    ),
  cycle: (place: string) =>
    modelError(
      'OF_CYCLE',
      place,
      'the graph has a cycle: this node depends on its own output',
      'export the model again',
    ),
  duplicateName: (place: string, name: string) =>
    modelError('OF_DUPLICATE_NAME', place, `the value '${name}' is defined twice`, 'export the model again'),
  undefinedValue: (place: string, name: string) =>
    modelError(
      'OF_UNDEFINED_VALUE',
      place,
      `reads the value '${name}', which nothing defines`,
      'export the model again',
    ),
  tensorSize: (tensor: string, found: number, expected: number) =>
    modelError(
      'OF_TENSOR_SIZE',
      `tensor '${tensor}'`,
      `holds ${found} bytes, its shape and type need ${expected}`,
      'export the model again',
    ),
  externalEscapes: (tensor: string, location: string) =>
    modelError(
      'OF_EXTERNAL_ESCAPES',
      `tensor '${tensor}'`,
      `external data '${location}' is outside the model's folder`,
      'move the data beside the model and fix the location; onnxruntime refuses such a file too',
    ),
  externalMissing: (tensor: string, file: string) =>
    modelError(
      'OF_EXTERNAL_MISSING',
      `tensor '${tensor}'`,
      `external data file '${file}' does not exist`,
      'copy the data file beside the model',
    ),
  externalShort: (tensor: string, file: string, need: number, have: number) =>
    modelError(
      'OF_EXTERNAL_SHORT',
      `tensor '${tensor}'`,
      `external data file '${file}' has ${have} bytes, ${need} are needed`,
      'copy the data file again',
    ),
  externalLength: (tensor: string, found: number, expected: number) =>
    modelError(
      'OF_EXTERNAL_LENGTH',
      `tensor '${tensor}'`,
      `external length is ${found}, its shape and type need ${expected}`,
      'export the model again',
    ),
  externalEntry: (tensor: string, key: string, value: string) =>
    modelError(
      'OF_EXTERNAL_ENTRY',
      `tensor '${tensor}'`,
      `external data entry ${key}='${value}' is not usable`,
      'export the model again',
    ),
  text: (place: string, found: string, expected: string) =>
    modelError('OF_TEXT', place, `expected ${expected}, found ${found}`, 'correct the text'),
  weightOverflow: (tensor: string, dtype: string) =>
    modelError(
      'OF_WEIGHT_OVERFLOW',
      `weight '${tensor}'`,
      `folding the norm's gamma makes a value too large for ${dtype}`,
      'fuse with --norm last, or leave the layer out of the run',
    ),
  noSuchFile: (file: string) => usageError('OF_NO_SUCH_FILE', file, 'no such file', 'check the path'),
  outputIsInput: (file: string, role: string) =>
    usageError(
      'OF_OUTPUT_IS_INPUT',
      file,
      `the output would overwrite ${role}`,
      'write to another path; inputs are never touched',
    ),
  changedUnderfoot: (file: string) =>
    systemError('OF_CHANGED', file, 'the file changed while it was being read', 'run again once nothing writes to it'),
  readFailed: (file: string, why: string) =>
    systemError('OF_READ', file, `cannot read: ${why}`, 'check the file and disk'),
  writeFailed: (file: string, why: string) =>
    systemError(
      'OF_WRITE',
      file,
      `cannot write: ${why}`,
      'check space and permissions; the old output was left as it was',
    ),
  usage: (place: string, why: string, remedy: string) => usageError('OF_USAGE', place, why, remedy),
};

/** The one-line text of anything thrown, for messages that quote a cause. */
export function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split('\n')[0] ?? text;
}
