/** Small files that a command reads or writes as a whole: plans, evidence, reports. Models go through ir/disk. */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Diagnostic, errors, moveFile, reasonOf, specialAt, visibleLines } from '../../ir/index.js';

/** Larger files are none that onnx-fuse wrote, and no config, plan or tokenizer. */
const MOST_BYTES = 64 * 2 ** 20;
/** How long a report waits for somebody to read the pipe that it goes to. */
const PATIENCE_MS = 5_000;
const POLL_MS = 10;

/**
 * The text of a file, without the mark that editors of Windows put in front of it.
 * @throws Diagnostic OF_NO_SUCH_FILE, OF_READ, or what `refuse` makes of a file that is too large.
 */
export function readText(path: string, refuse: (path: string, why: string) => Diagnostic): string {
  const { file, size } = openInput(path);
  try {
    if (size > MOST_BYTES) throw refuse(path, `it is larger than ${MOST_BYTES / 2 ** 20} MiB`);
    return readFileSync(file, 'utf8').replace(/^\ufeff/, '');
  } catch (error) {
    throw inputError(path, error);
  } finally {
    closeSync(file);
  }
}

/**
 * Opens a file to read. Only regular files are opened, and what the caller of this process has opened (/dev/stdin): a pipe
 * that lies in a folder would wait for ever.
 * @throws Diagnostic OF_NO_SUCH_FILE, OF_READ.
 */
export function openInput(path: string): { readonly file: number; readonly size: number } {
  let file: number | null = null;
  try {
    const isOpen = (specialAt(path)?.descriptor ?? null) !== null;
    file = openSync(path, constants.O_RDONLY | (isOpen ? 0 : (constants.O_NONBLOCK ?? 0)));
    const found = fstatSync(file);
    if (found.isDirectory()) throw errors.readFailed(path, 'it is a folder');
    if (!found.isFile() && !isOpen) throw errors.readFailed(path, 'it is not a regular file');
    return { file, size: found.size };
  } catch (error) {
    if (file !== null) closeSync(file);
    throw inputError(path, error);
  }
}

/** What the system said, as an error of ours. */
export function inputError(path: string, error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR') return errors.noSuchFile(path);
  return code?.startsWith('E') ? errors.readFailed(path, reasonOf(error)) : error;
}

/**
 * The JSON value in a file.
 * @throws Diagnostic OF_NO_SUCH_FILE, OF_READ, or what `refuse` makes of a file that is too large or no JSON.
 */
export function readJson(path: string, refuse: (path: string, why: string) => Diagnostic): unknown {
  const text = readText(path, refuse);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw refuse(path, `it is no JSON (${reasonOf(error)})`);
  }
}

/**
 * Writes a file so that a reader sees the old one or the new one. Its temporary name is nobody else's, and is made anew: a
 * link or a file that somebody left there is neither followed nor lost. @throws Diagnostic OF_WRITE.
 */
export function replaceFile(path: string, text: string): void {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}-${randomBytes(6).toString('hex')}.new`);
  let isOurs = false;
  try {
    if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory()) throw new Error('it is a folder');
    const file = openSync(temporary, 'wx');
    isOurs = true;
    try {
      writeFileSync(file, text);
    } finally {
      closeSync(file);
    }
    moveFile(temporary, path);
  } catch (error) {
    if (isOurs) rmSync(temporary, { force: true });
    throw errors.writeFailed(path, reasonOf(error));
  }
}

/**
 * Writes a small output: a file is replaced as a whole; into a pipe, a device or a file that is open already (/dev/stdout)
 * the text is written as it is. @throws Diagnostic OF_WRITE.
 */
export async function writeWhole(path: string, text: string): Promise<void> {
  const special = specialAt(path);
  if (!special) return replaceFile(path, text);
  let file: number | null = null;
  try {
    // An open file goes on where it is: opening it once more would begin at its start.
    file = special.descriptor ?? (await openSpecial(path));
    await writeAll(file, Buffer.from(text));
  } catch (error) {
    throw errors.writeFailed(path, reasonOf(error));
  } finally {
    if (file !== null && special.descriptor === null) closeSync(file);
  }
}

/** Opens what is no file without ever waiting inside the system, where no signal would be heard. */
async function openSpecial(path: string): Promise<number> {
  for (const began = Date.now(); ; await sleep(POLL_MS)) {
    try {
      return openSync(path, constants.O_WRONLY | (constants.O_NONBLOCK ?? 0));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw error;
      if (Date.now() - began > PATIENCE_MS) throw new Error(`nobody has read from it for ${PATIENCE_MS / 1000} s`);
    }
  }
}

async function writeAll(file: number, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(file, bytes, at);
    } catch (error) {
      // Full for now: whoever reads it is slower than we are.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      await sleep(POLL_MS);
    }
  }
}

/** `writeWhole` of a value as `jsonOf` writes it, with escapes for what would not be seen. @throws Diagnostic OF_WRITE. */
export async function writeJson(path: string, value: unknown, indent = 2): Promise<void> {
  await writeWhole(path, `${visibleLines(jsonOf(value, indent))}\n`);
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
