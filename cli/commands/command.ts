/** How commands give results: as text for people, as JSON for programs, or both. */
import { jsonOf, writeJson } from '../../api/basics/small-file.js';
import { Diagnostic, visibleData } from '../../ir/index.js';
import { EXIT_CODES, renderDiagnostic } from '../text/diagnostic.js';
import { printable } from '../text/table.js';

/** What a command found out. */
export interface Outcome<T extends object> {
  /** What the JSON calls itself: `verification` is `onnx-fuse verification`. */
  readonly kind: string;
  readonly result: T;
  /** The result for people. It sees no name as anything but text on one line. */
  readonly render: (shown: T) => string;
  /** What is wrong with a result that is given all the same: a limit that it does not keep. */
  readonly failure?: Diagnostic | null;
}

/** Standard output, in the place of a file. */
const STDOUT = '-';

/** Prints results: on stdout, unlike notes, progress and errors. Only line breaks and our own colours do what they say. */
export function say(text: string): void {
  process.stdout.write(`${printable(text)}\n`);
}

/** Gives a result: `json` is the file that it goes to as JSON, or `-`, where only JSON is printed. Returns the exit code. */
export async function give<T extends object>(
  { kind, result, render, failure = null }: Outcome<T>,
  json: string | undefined,
): Promise<number> {
  const head = { kind: `onnx-fuse ${kind}`, version: 1, status: failure ? 'failed' : 'done' };
  if (json !== undefined) await putJson({ ...head, ...result, ...(failure ? errorOf(failure) : {}) }, json);
  if (json !== STDOUT) say(render(visibleData(result)));
  if (!failure) return 0;
  process.stderr.write(renderDiagnostic(failure));
  return EXIT_CODES[failure.kind];
}

/** What `check` finds wrong with a result; null where it finds nothing. */
export function failureIn(check: () => void): Diagnostic | null {
  try {
    check();
    return null;
  } catch (error) {
    if (error instanceof Diagnostic) return error;
    throw error;
  }
}

/** Says as JSON that a command failed, besides the line on stderr. */
export async function giveFailure(command: string, error: Diagnostic, json: string): Promise<void> {
  await putJson({ kind: 'onnx-fuse failure', version: 1, status: 'failed', command, ...errorOf(error) }, json);
}

async function putJson(value: object, json: string): Promise<void> {
  if (json === STDOUT) say(jsonOf(value, 2));
  else await writeJson(json, value);
}

function errorOf({ code, place, text, remedy }: Diagnostic) {
  return { code, place, message: text, remedy };
}
