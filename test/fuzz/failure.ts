/** What a failed case is called, so that the same fault found twice is one fault. */

export interface Failure {
  /** Equal for failures that look like one fault. */
  readonly signature: string;
  readonly text: string;
}

/** A result that is wrong although nothing was thrown. */
export class Wrong extends Error {
  constructor(
    readonly kind: string,
    text: string,
  ) {
    super(`${kind}: ${text}`);
  }
}

/** The failure that something thrown stands for: what is wrong, or where the code fell over. */
export function failureOf(error: unknown): Failure {
  if (error instanceof Wrong) return { signature: plain(error.message), text: error.message };
  const { message, stack, name } = error instanceof Error ? error : new Error(String(error));
  const frame = /at (?:async )?([\w.#<>[\] ]+) \(/.exec(stack ?? '')?.[1] ?? 'somewhere';
  // A stack that overflows does so at any of the functions that call one another.
  const place = /call stack/.test(message) ? '' : ` in ${frame}`;
  return { signature: `${name}: ${plain(message)}${place}`, text: stack ?? message };
}

/** Without numbers and quoted names. */
function plain(text: string): string {
  return text
    .split('\n')[0]!
    .replace(/'[^']*'/g, "'x'")
    .replace(/-?\d+(\.\d+)?(e[-+]?\d+)?/g, 'N')
    .slice(0, 160);
}
