/**
 * Every error that a user can cause is data: a code, who has to act, what it means, the usual remedy, and a message with
 * the place, what was found and what was expected. Each layer has a catalogue of its own; this file has the form of them
 * and the catalogue of `ir`. docs/errors.md is made from all of them.
 *
 * Texts name an option by its meaning, as `option keep-last`. Only the command line has flags, and it says which.
 */
import { counted } from './visible.js';

/** Who has to act: the model is wrong, the request is wrong, or the machine failed. */
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

  /** The same error, where it is of one among several: its place is within `place`. */
  within(place: string): Diagnostic {
    return new Diagnostic(
      this.code,
      this.kind,
      this.place === '' ? place : `${place}: ${this.place}`,
      this.text,
      this.remedy,
    );
  }
}

/** What one error says. */
export interface Message {
  readonly place: string;
  readonly text: string;
  /** Stands in for the remedy of the entry, where the case calls for another. */
  readonly remedy?: string | undefined;
  /** The error behind this one; the command line shows its stack when DEBUG is set. */
  readonly cause?: unknown;
}

/** One error of a catalogue. */
export interface CatalogueEntry {
  /** Codes are stable: scripts match on them. */
  readonly code: `OF_${string}`;
  readonly kind: DiagnosticKind;
  /** What the error means to a user, in one sentence. */
  readonly about: string;
  /** The usual remedy: what the message ends with, unless it brings a remedy of its own. */
  readonly remedy: string;
  readonly message: (...args: never) => Message;
}

/** Makes the errors of one entry, and recognises them. */
export interface ErrorFactory<A extends readonly unknown[]> {
  (...args: A): Diagnostic;
  readonly entry: CatalogueEntry;
  /** True for an error with the code of this entry, whoever made it. */
  is(error: unknown): error is Diagnostic;
}

/** A catalogue: for each entry the function that makes its error. */
export function catalogue<const C extends Readonly<Record<string, CatalogueEntry>>>(
  entries: C,
): { readonly [K in keyof C]: ErrorFactory<Parameters<C[K]['message']>> } {
  const factories = Object.entries<CatalogueEntry>(entries).map(([name, entry]) => [name, factoryOf(entry)]);
  return Object.fromEntries(factories) as { readonly [K in keyof C]: ErrorFactory<Parameters<C[K]['message']>> };
}

function factoryOf(entry: CatalogueEntry): ErrorFactory<readonly unknown[]> {
  const message = entry.message as (...args: readonly unknown[]) => Message;
  const make = (...args: readonly unknown[]): Diagnostic => {
    const { place, text, remedy = entry.remedy, cause } = message(...args);
    const made = new Diagnostic(entry.code, entry.kind, place, text, remedy);
    if (cause !== undefined) made.cause = cause;
    return made;
  };
  const is = (error: unknown): error is Diagnostic => error instanceof Diagnostic && error.code === entry.code;
  return Object.assign(make, { entry, is });
}

/** The operations of weight expressions whose results can be too large. */
export type OverflowingOp = 'scale' | 'contract' | 'add' | 'cast' | 'requantize';

const OVERFLOW_REMEDY = 'leave the layers of this weight as they are';
/** What each operation does, and how it is avoided where there is a choice. */
const OVERFLOWS: Readonly<Record<OverflowingOp, { readonly doing: string; readonly instead: string | null }>> = {
  scale: { doing: 'multiplying it by a vector', instead: 'do not fold norms into weights (option norm)' },
  contract: { doing: 'multiplying a vector by it', instead: 'do not fold norms into weights (option norm)' },
  add: { doing: 'adding it up', instead: null },
  cast: { doing: 'converting it', instead: null },
  requantize: { doing: 'quantising it again', instead: 'do not quantise again (without option requantize)' },
};

/** The errors of files, of the ONNX format and of writing; passes, runtime and api have their own. */
export const errors = catalogue({
  notOnnx: {
    code: 'OF_NOT_ONNX',
    kind: 'model',
    about: 'The file does not hold an ONNX model.',
    remedy: 'give the path of a .onnx file',
    message: (file: string, why: string) => ({ place: file, text: `it is not an ONNX model: ${why}` }),
  },
  truncated: {
    code: 'OF_TRUNCATED',
    kind: 'model',
    about: 'The file ends in the middle of the model, as after a copy or a download that was broken off.',
    remedy: 'copy or download it again',
    message: (file: string, at: number, need: number, have: number) => ({
      place: file,
      text: `the file ends early: ${counted(need, 'byte')} expected at offset ${at}, found ${have}`,
    }),
  },
  badWire: {
    code: 'OF_BAD_WIRE',
    kind: 'model',
    about: 'The bytes of the file break the rules of protobuf or of ONNX.',
    remedy: 'export or download the model again',
    message: (place: string, why: string) => ({ place, text: `its protobuf is malformed: ${why}` }),
  },
  tooDeep: {
    code: 'OF_TOO_DEEP',
    kind: 'model',
    about: 'The model has graphs inside graphs, deeper than any real model.',
    remedy: 'export the model again: no exporter nests graphs as deep as this',
    message: (place: string, limit: number) => ({ place, text: `its graphs are nested deeper than ${limit}` }),
  },
  missingField: {
    code: 'OF_MISSING_FIELD',
    kind: 'model',
    about: 'A field that ONNX requires is absent.',
    remedy: 'export the model again',
    message: (place: string, field: string) => ({ place, text: `the required field ${field} is absent` }),
  },
  unsafeInteger: {
    code: 'OF_UNSAFE_INTEGER',
    kind: 'model',
    about: 'A number in the model, such as a dimension, is negative or too large to be true.',
    remedy: 'the file is damaged or hostile; export it again',
    message: (place: string, found: string) => ({ place, text: `expected an integer below 2^53, found ${found}` }),
  },
  cycle: {
    code: 'OF_CYCLE',
    kind: 'model',
    about: 'A node of the graph needs its own output, so that the graph has no order to run in.',
    remedy: 'export the model again',
    message: (place: string) => ({ place, text: 'the graph has a cycle: this node depends on its own output' }),
  },
  duplicateName: {
    code: 'OF_DUPLICATE_NAME',
    kind: 'model',
    about: 'Two inputs, initializers or node outputs of one graph have the same name.',
    remedy: 'export the model again',
    message: (place: string, name: string) => ({ place, text: `the value '${name}' is defined twice` }),
  },
  undefinedValue: {
    code: 'OF_UNDEFINED_VALUE',
    kind: 'model',
    about: 'A node or an output list names a value that nothing in the graph gives.',
    remedy: 'export the model again',
    message: (place: string, name: string) => ({
      place,
      text: `the value '${name}' is read here, and nothing defines it`,
    }),
  },
  tensorSize: {
    code: 'OF_TENSOR_SIZE',
    kind: 'model',
    about: 'A tensor holds more or fewer bytes than its shape and type need.',
    remedy: 'export the model again',
    message: (tensor: string, found: number, expected: number) => ({
      place: `tensor '${tensor}'`,
      text: `it holds ${counted(found, 'byte')}, its shape and type need ${expected}`,
    }),
  },
  externalEscapes: {
    code: 'OF_EXTERNAL_ESCAPES',
    kind: 'model',
    about: "The model wants its weights from a file outside the model's folder.",
    remedy: 'move the data beside the model and fix the location',
    message: (tensor: string, location: string) => ({
      place: `tensor '${tensor}'`,
      text: `its external data '${location}' is outside the model's folder`,
    }),
  },
  externalMissing: {
    code: 'OF_EXTERNAL_MISSING',
    kind: 'model',
    about: 'The data file with the weights is not beside the model.',
    remedy: 'copy the data file beside the model',
    message: (tensor: string, file: string) => ({
      place: `tensor '${tensor}'`,
      text: `its external data file '${file}' does not exist`,
    }),
  },
  externalShort: {
    code: 'OF_EXTERNAL_SHORT',
    kind: 'model',
    about: 'The data file with the weights is shorter than the model says.',
    remedy: 'copy the data file again',
    message: (tensor: string, file: string, need: number, have: number) => ({
      place: `tensor '${tensor}'`,
      text: `its external data file '${file}' has ${counted(have, 'byte')}, ${need} are needed`,
    }),
  },
  externalLength: {
    code: 'OF_EXTERNAL_LENGTH',
    kind: 'model',
    about: 'The length that the model notes for external data does not fit the shape and type of the tensor.',
    remedy: 'export the model again',
    message: (tensor: string, found: number, expected: number) => ({
      place: `tensor '${tensor}'`,
      text: `its external length is ${found}, its shape and type need ${expected}`,
    }),
  },
  externalEntry: {
    code: 'OF_EXTERNAL_ENTRY',
    kind: 'model',
    about: 'A note of where external data lie (location, offset or length) cannot be understood.',
    remedy: 'export the model again',
    message: (tensor: string, key: string, value: string) => ({
      place: `tensor '${tensor}'`,
      text: `its external data entry ${key}='${value}' is not usable`,
    }),
  },
  text: {
    code: 'OF_TEXT',
    kind: 'model',
    about: 'A text in ONNX textual syntax cannot be understood at this line and column.',
    remedy: 'correct the text',
    message: (place: string, found: string, expected: string) => ({
      place,
      text: `expected ${expected}, found ${found}`,
    }),
  },
  weightOverflow: {
    code: 'OF_WEIGHT_OVERFLOW',
    kind: 'model',
    about: 'Computing a new weight gives a number that is too large for its element type.',
    remedy: OVERFLOW_REMEDY,
    /** `how` says of which numbers it was made, such as `60000 times 2`. */
    message: (tensor: string, dtype: string, op: OverflowingOp, how: string) => {
      const { doing, instead } = OVERFLOWS[op];
      return {
        place: `weight '${tensor}'`,
        text: `${doing} gives a number too large for ${dtype}: ${how}`,
        remedy: instead === null ? undefined : `${OVERFLOW_REMEDY}, or ${instead}`,
      };
    },
  },
  noSuchFile: {
    code: 'OF_NO_SUCH_FILE',
    kind: 'usage',
    about: 'A file that was asked for does not exist.',
    remedy: 'check the path',
    message: (file: string) => ({ place: file, text: 'there is no such file' }),
  },
  outputIsInput: {
    code: 'OF_OUTPUT_IS_INPUT',
    kind: 'usage',
    about: 'The output would replace a file or a folder that is read.',
    remedy: 'write to another path; inputs are never touched',
    message: (file: string, role: string) => ({ place: file, text: `the output would overwrite ${role}` }),
  },
  changedUnderfoot: {
    code: 'OF_CHANGED',
    kind: 'system',
    about: 'Another program changed an input file while it was being read.',
    remedy: 'run again once nothing writes to it',
    message: (file: string) => ({ place: file, text: 'the file changed while it was being read' }),
  },
  sharedChanged: {
    code: 'OF_SHARED_CHANGED',
    kind: 'model',
    about: 'A file in which a model has weights together with another model (option share-weights) is not what it was.',
    remedy: 'put the file back that the model was made from, or make the model again',
    message: (file: string, found: string, expected: string) => ({
      place: file,
      text: `the model shares this file's weights with its original, but it has changed: found ${found}, expected ${expected}`,
    }),
  },
  readFailed: {
    code: 'OF_READ',
    kind: 'system',
    about: 'The operating system did not let a file be read.',
    remedy: 'check the file and disk',
    message: (file: string, why: string) => ({ place: file, text: `it cannot be read: ${why}` }),
  },
  writeFailed: {
    code: 'OF_WRITE',
    kind: 'system',
    about: 'The operating system did not let the output be written.',
    remedy: 'check space and permissions; the old output was left as it was',
    message: (file: string, why: string) => ({ place: file, text: `it cannot be written: ${why}` }),
  },
  notAFile: {
    code: 'OF_NOT_A_FILE',
    kind: 'usage',
    about: 'The output is a device, a pipe or the like, which renaming a file over it would destroy.',
    remedy: 'give the path of a file',
    message: (target: string, kind: string) => ({
      place: target,
      text: `the output is ${kind}, expected a file or nothing`,
    }),
  },
  leftover: {
    code: 'OF_LEFTOVER',
    kind: 'system',
    about:
      'Beside the output lies something that looks like what an interrupted run leaves, but no run of ours made it.',
    remedy: 'see who put it there, and remove it',
    message: (folder: string, why: string) => ({
      place: folder,
      text: `looks like what an interrupted run leaves, but is not: ${why}`,
    }),
  },
  usage: {
    code: 'OF_USAGE',
    kind: 'usage',
    about: 'What was asked for cannot be understood, or goes against something else that was asked for.',
    remedy: 'correct what the message names',
    message: (place: string, why: string, remedy: string) => ({ place, text: why, remedy }),
  },
});

/** The one-line text of anything thrown, for messages that quote a cause. */
export function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split('\n')[0] ?? text;
}
