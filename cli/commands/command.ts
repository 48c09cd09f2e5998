/** How results are given: as text for people, as JSON for programs, or both. */
import { jsonOf, writeJson } from '../../api/basics/small-file.js';
import { checkTarget } from '../../api/basics/targets.js';
import { Diagnostic, errors, visibleData } from '../../ir/index.js';
import { EXIT_CODES, renderDiagnostic } from '../text/diagnostic.js';
import { printable } from '../text/table.js';
import type { Outcome } from './results.js';

/** Standard output, in the place of a file. */
const STDOUT = '-';

/** Prints results: on stdout, unlike notes, progress and errors. Only line breaks and our own colours do what they say. */
export function say(text: string): void {
  process.stdout.write(`${printable(text)}\n`);
}

/** Gives a result: `json` is the file that it goes to as JSON, or `-`, where only JSON is printed. Returns the exit code. */
export async function give(outcome: Outcome, json: string | undefined): Promise<number> {
  if (json !== undefined) await putJson(jsonFor(outcome), json);
  const { result, failure } = outcome;
  const render = outcome.render as (shown: object) => string;
  const text = json === STDOUT ? '' : render(visibleData<object>(result));
  if (text !== '') say(text);
  if (!failure) return 0;
  process.stderr.write(renderDiagnostic(failure));
  return EXIT_CODES[failure.kind];
}

/** A result as JSON: what it is, whether all is well with it, and the result itself. */
export function jsonFor({ kind, result, failure = null }: Outcome) {
  const head = { kind: `onnx-fuse ${kind}`, version: 1, status: failure ? ('failed' as const) : ('done' as const) };
  return { ...head, ...result, ...(failure ? errorOf(failure) : {}) };
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

/** That a command failed, as JSON, besides the line on stderr. */
export function failureFor(command: string, error: Diagnostic) {
  return { kind: 'onnx-fuse failure', version: 1, status: 'failed' as const, command, ...errorOf(error) };
}

/** Where JSON goes is checked before the work; `reads`: what the command reads. @throws Diagnostic OF_WRITE, OF_USAGE. */
export function checkJson(json: string, reads: readonly (string | undefined)[]): void {
  if (json === STDOUT) return;
  checkTarget(json, reads);
  // Weights, which a model's file may name, are never called so.
  if (!json.endsWith('.json')) throw errors.usage('--json', `'${json}' does not end in .json`, 'call it so');
}

/** Writes JSON to a file, or prints it. @throws Diagnostic OF_WRITE. */
export async function putJson(value: object, json: string): Promise<void> {
  if (json === STDOUT) say(jsonOf(value, 2));
  else await writeJson(json, value);
}

function errorOf({ code, place, text, remedy }: Diagnostic) {
  return { code, place, message: text, remedy };
}
