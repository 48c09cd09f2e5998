/** Small files that a command reads or writes as a whole: plans, evidence, reports. Models go through ir/disk. */
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { type Diagnostic, errors, reasonOf } from '../../ir/index.js';

/** Larger files are none that onnx-fuse wrote. */
const MOST_BYTES = 64 * 2 ** 20;

/**
 * The JSON value in a file.
 * @throws Diagnostic OF_NO_SUCH_FILE, OF_READ, or what `refuse` makes of a file that is too large or no JSON.
 */
export function readJson(path: string, refuse: (path: string, why: string) => Diagnostic): unknown {
  let text: string;
  try {
    if (statSync(path).size > MOST_BYTES) throw refuse(path, 'it is larger than 64 MiB');
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') throw errors.noSuchFile(path);
    if (code?.startsWith('E')) throw errors.readFailed(path, reasonOf(error));
    throw error;
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw refuse(path, `it is no JSON (${reasonOf(error)})`);
  }
}

/** Writes a file so that a reader sees the old one or the new one. @throws Diagnostic OF_WRITE. */
export function writeWhole(path: string, text: string): void {
  const temporary = `${path}.new`;
  try {
    writeFileSync(temporary, text);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw errors.writeFailed(path, reasonOf(error));
  }
}

/** `writeWhole` of a value as `jsonOf` writes it. @throws Diagnostic OF_WRITE. */
export function writeJson(path: string, value: unknown, indent = 2): void {
  writeWhole(path, `${jsonOf(value, indent)}\n`);
}

/** What stands for Infinity: a number of JSON that is larger than any double. */
const INFINITE = '1e999';

/**
 * A value as JSON in which infinite numbers survive: they are written as 1e999, which JSON.parse, Python and jq read as a
 * number beyond any limit. JSON.stringify would make null of them, which compares like a perfect score.
 */
export function jsonOf(value: unknown, indent = 0): string {
  const plain = JSON.stringify(value, null, indent);
  // A text that the value does not hold stands for what JSON.stringify cannot write.
  let mark = 'infinite';
  while (plain?.includes(mark)) mark += '!';
  const marked = JSON.stringify(
    value,
    (_, each: unknown) => (isInfinite(each) ? `${mark}${each > 0 ? '+' : '-'}` : each),
    indent,
  );
  return marked?.replaceAll(`"${mark}+"`, INFINITE).replaceAll(`"${mark}-"`, `-${INFINITE}`);
}

function isInfinite(value: unknown): value is number {
  return value === Number.POSITIVE_INFINITY || value === Number.NEGATIVE_INFINITY;
}
