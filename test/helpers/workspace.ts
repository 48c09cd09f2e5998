/** A folder of a test's own, and the command line run inside this process. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { main } from '../../cli/main.js';
import { skip } from './suite.js';

/** Runs `work` in a fresh folder, which is removed afterwards. */
export async function inWorkspace<T>(work: (folder: string) => T | Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-test-'));
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** One of something, called as if it were several: `1 layers`. */
const FALSE_PLURAL =
  /(?<![\d.:^x+*-] ?)\b1 (?:more |KV-cache |key-value |random |linear )?(?:nodes|layers|attentions|FFNs|heads|channels|caches|inputs|tokens|functions|positions|branches|plans|files|bytes|rows|linears|rounds|ranks|parameters|operators|sequences|maps|models|dependencies|initializers)\b/;

/** Throws where a person would read `1 layers`. */
export function checkPlurals(text: string): void {
  const found = FALSE_PLURAL.exec(text);
  if (found) throw new Error(`it says '${text.slice(Math.max(0, found.index - 40), found.index + 40)}'`);
}

/** Runs the command line and captures what it prints, in which one of something is not several, and numbers are numbers. */
export async function runCli(...argv: string[]): Promise<Outcome> {
  const out: string[] = [];
  const err: string[] = [];
  const [stdout, stderr] = [process.stdout.write, process.stderr.write];
  const capture = (into: string[]) => (text: string | Uint8Array) => {
    into.push(String(text));
    return true;
  };
  process.stdout.write = capture(out) as typeof process.stdout.write;
  process.stderr.write = capture(err) as typeof process.stderr.write;
  try {
    const code = await main(argv);
    const found = { code, stdout: out.join(''), stderr: err.join('') };
    checkPlurals(found.stdout);
    checkPlurals(found.stderr);
    // What is quoted was written by somebody, and weights may be anything.
    const isTextOfModel = argv[0] === 'print' || argv[0] === 'golden';
    if (!isTextOfModel && /(?<!')\bNaN\b/.test(found.stdout + found.stderr)) throw new Error('it says NaN');
    return found;
  } finally {
    process.stdout.write = stdout;
    process.stderr.write = stderr;
  }
}

/** Skips the test where a sparse file takes as much of the disk as its size says. */
export function needHoles(path: string): void {
  const { size, blocks } = statSync(path);
  if (blocks * 512 >= size / 4) skip('this file system keeps no holes');
}

/** Runs `work` as if both outputs were a terminal of so many columns. */
export async function onTerminal<T>({ columns }: { readonly columns: number }, work: () => Promise<T>): Promise<T> {
  const streams = [process.stdout, process.stderr];
  const before = streams.map((stream) =>
    ['isTTY', 'columns'].map((key) => Object.getOwnPropertyDescriptor(stream, key)),
  );
  const set = (stream: object, key: string, descriptor: PropertyDescriptor | undefined): void => {
    if (descriptor) Object.defineProperty(stream, key, descriptor);
    else Reflect.deleteProperty(stream, key);
  };
  for (const stream of streams) {
    set(stream, 'isTTY', { value: true, configurable: true });
    set(stream, 'columns', { value: columns, configurable: true });
  }
  try {
    return await work();
  } finally {
    streams.forEach((stream, i) => {
      ['isTTY', 'columns'].forEach((key, k) => {
        set(stream, key, before[i]?.[k]);
      });
    });
  }
}
