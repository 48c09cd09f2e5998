/** How the command line reports an error. */
import type { Diagnostic, DiagnosticKind } from '../../ir/diagnostic.js';
import { visible, visibleLines } from '../../ir/visible.js';
import { withFlags } from './flags.js';

/** The exit code of each kind of error; 0 is success. */
export const EXIT_CODES: Readonly<Record<DiagnosticKind, number>> = { model: 1, usage: 2, system: 1 };

/** The line that reports an error; the stack of its cause is added for developers, when DEBUG is set. */
export function renderDiagnostic(error: Diagnostic): string {
  const isDebugged = process.env['DEBUG'] && error.cause instanceof Error;
  const stack = isDebugged ? `${visibleLines(String((error.cause as Error).stack))}\n` : '';
  return `onnx-fuse: ${visible(withFlags(error.message))}\n${stack}`;
}
