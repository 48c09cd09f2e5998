/**
 * Golden files: one text file that holds a model, a pipeline, and what the pipeline makes of it. golden/README.md says how
 * they are written; this file reads them, and golden-check.ts holds them against the passes.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

export { GOLDEN_ROOT } from './paths.js';
/** What accepts new output: printed by every failure that it can cure. */
export const ACCEPT_COMMAND = 'ONNX_FUSE_ACCEPT=1 node dist/test/run.js golden.test';

/** How far the outputs of both sides are apart. */
export type GoldenTolerance =
  | { readonly kind: 'exact' }
  /** At most `relative` (L2, per output). */
  | { readonly kind: 'close'; readonly relative: number }
  /**
   * Another function. With `relative`, the output is as close as that to what the steps that change the function make of the
   * input: the other steps of the pipeline are held to it.
   */
  | { readonly kind: 'changes-function'; readonly relative: number | null };

/** How many nodes of an operator there are before and after. */
export interface Count {
  readonly op: string;
  readonly before: number;
  readonly after: number;
}

export interface Golden {
  readonly file: string;
  /** `concat-ffn/folded`. */
  readonly name: string;
  /** The lines from the top to the first section, as they stand. */
  readonly head: string;
  readonly pipeline: string;
  readonly tolerance: GoldenTolerance;
  /** Written by hand and not touched by accepting. */
  readonly counts: readonly Count[];
  /** False where running the pipeline twice is an error or a change by nature. */
  readonly repeat: boolean;
  /** Both sides run with float in every place of bfloat16, for which onnxruntime has no kernels on a CPU. */
  readonly twin: boolean;
  readonly input: string;
  readonly remarks: string;
  readonly output: string;
  /** `output`, or `error` where the pipeline refuses. */
  readonly outcome: 'output' | 'error';
}

/** The output section of a case in which nothing changes. */
export const UNCHANGED = 'unchanged\n';
export const NO_REMARKS = 'none\n';

/** Reads a golden file, whatever line ends Git gave it. Throws an Error with one line about what is wrong with its form. */
export function parseGolden(text: string, file: string): Golden {
  const name = `${basename(dirname(file))}/${basename(file, '.golden')}`;
  const fail = (why: string): never => {
    throw new Error(`${name}: ${why}`);
  };
  const [head = '', ...parts] = text.replaceAll('\r\n', '\n').split(/^== /m);
  const sections = new Map<string, string>();
  for (const part of parts) {
    const end = part.indexOf('\n');
    const title = part.slice(0, end);
    if (sections.has(title)) fail(`section '${title}' is there twice`);
    if (part.slice(end + 1).trim() === '') fail(`section '${title}' is empty`);
    sections.set(title, part.slice(end + 1));
  }
  const outcome = sections.has('error') ? 'error' : 'output';
  const wanted = ['input', 'remarks', outcome].join();
  const found = [...sections.keys()].join();
  if (found !== wanted) fail(`expected the sections ${wanted}, found ${found || 'none'}`);

  const fields = readHead(head, fail);
  const repeat = fields.get('repeat');
  if (repeat !== undefined && !/^no, \S/.test(repeat)) fail("expected 'repeat: no, <reason>'");
  const runs = fields.get('runs');
  if (runs !== undefined && !/^as its fp32 twin, because \S/.test(runs)) {
    fail("expected 'runs: as its fp32 twin, because <reason>'");
  }
  const output = sections.get(outcome) as string;
  const counts = readCounts(fields.get('counts'), fail);
  if (outcome === 'output' && output !== UNCHANGED && counts.length === 0) {
    fail("a case that changes something needs 'counts: MatMul 9 -> 3'");
  }
  return {
    file,
    name,
    head,
    pipeline: fields.get('pipeline') ?? fail("no 'pipeline:' line"),
    tolerance: readTolerance(fields.get('tolerance'), fail),
    counts,
    repeat: repeat === undefined,
    twin: runs !== undefined,
    input: sections.get('input') as string,
    remarks: sections.get('remarks') as string,
    output,
    outcome,
  };
}

const FIELDS = ['pipeline', 'tolerance', 'counts', 'repeat', 'runs'];

/** Comment lines first, then `field: value` lines. */
function readHead(head: string, fail: (why: string) => never): Map<string, string> {
  const lines = head.trimEnd().split('\n');
  const fields = new Map<string, string>();
  const first = lines.findIndex((line) => !line.startsWith('#'));
  if (first <= 0) fail('it must begin with # lines that say what it shows');
  for (const line of lines.slice(first)) {
    const match = /^([a-z]+): (.*)$/.exec(line);
    if (!match || !FIELDS.includes(match[1] as string)) fail(`expected ${FIELDS.join(', ')}, found '${line}'`);
    const [, key, value] = match as unknown as [string, string, string];
    if (fields.has(key)) fail(`'${key}:' is there twice`);
    fields.set(key, value.trim());
  }
  return fields;
}

function readTolerance(text: string | undefined, fail: (why: string) => never): GoldenTolerance {
  if (text === 'exact') return { kind: 'exact' };
  const [first, second] = (text ?? '').split(', then ');
  const relative = Number(first === 'changes-function' ? (second ?? 1e-6) : text);
  // Beyond this a comparison would accept a fusion that is plainly wrong.
  if (!(relative > 0 && relative <= 1e-2)) {
    fail("expected 'tolerance:' exact, a number up to 1e-2, changes-function, or changes-function, then <number>");
  }
  if (first === 'changes-function') return { kind: first, relative: second === undefined ? null : relative };
  return { kind: 'close', relative };
}

function readCounts(text: string | undefined, fail: (why: string) => never): Count[] {
  if (text === undefined) return [];
  return text.split(', ').map((part): Count => {
    const match = /^(\w+) (\d+) -> (\d+)$/.exec(part);
    if (!match) return fail(`expected 'counts: MatMul 9 -> 3, Add 4 -> 2', found '${part}'`);
    return { op: match[1] as string, before: Number(match[2]), after: Number(match[3]) };
  });
}

/** The text of a golden file with what was found in the place of what was expected. */
export function writeGolden(golden: Golden, input: string, remarks: string, outcome: string, output: string): string {
  return `${golden.head}== input\n${input}== remarks\n${remarks}== ${outcome}\n${output}`;
}

/** What the rules for the folder say about a tree of golden files. */
export interface GoldenTree {
  readonly goldens: readonly Golden[];
  /** One line each; none when all is well. */
  readonly problems: readonly string[];
}

/** Folders that hold something else than the cases of one pass. */
const OTHER_FOLDERS: Readonly<Record<string, RegExp>> = {
  cli: /^help\.txt$/,
  models: /\.(onnx|onnx\.data|md|json|jsonl|txt)$/,
};

/**
 * Reads all golden files under `root`. Orphans (a folder that is no pass, a file of another kind), folders without cases
 * and passes without a case that changes something and one that does not are problems.
 */
export function readGoldenTree(root: string, passes: readonly string[]): GoldenTree {
  const problems: string[] = [];
  const goldens: Golden[] = [];
  const cased = [...passes, 'pipeline'];
  for (const entry of existsSync(root) ? readdirSync(root).sort() : []) {
    if (!statSync(join(root, entry)).isDirectory()) {
      if (entry !== 'README.md') problems.push(`${entry}: only README.md and folders belong here`);
    } else if (!cased.includes(entry) && !OTHER_FOLDERS[entry]) {
      problems.push(`${entry}: no pass is called so`);
    }
  }
  for (const folder of cased) {
    const own = readFolder(join(root, folder), problems);
    goldens.push(...own);
    if (own.length === 0) problems.push(`${folder}: has no golden file`);
    else if (passes.includes(folder)) {
      const isChanged = (golden: Golden) => golden.outcome === 'output' && golden.output !== UNCHANGED;
      if (!own.some(isChanged)) problems.push(`${folder}: has no case in which something changes`);
      if (own.every(isChanged)) problems.push(`${folder}: has no case in which nothing changes`);
      for (const { name, pipeline } of own) {
        if (!pipeline.startsWith(folder)) problems.push(`${name}: its pipeline does not begin with ${folder}`);
      }
    }
  }
  for (const [folder, allowed] of Object.entries(OTHER_FOLDERS)) {
    for (const file of existsSync(join(root, folder)) ? readdirSync(join(root, folder)) : []) {
      if (!allowed.test(file)) problems.push(`${folder}/${file}: does not belong here`);
    }
  }
  return { goldens, problems };
}

function readFolder(folder: string, problems: string[]): Golden[] {
  const goldens: Golden[] = [];
  for (const file of existsSync(folder) ? readdirSync(folder).sort() : []) {
    const path = join(folder, file);
    if (!/^[a-z0-9-]+\.golden$/.test(file)) {
      problems.push(`${basename(folder)}/${file}: expected <case>.golden, in lower case with hyphens`);
      continue;
    }
    try {
      goldens.push(parseGolden(readFileSync(path, 'utf8'), path));
    } catch (error) {
      problems.push(error instanceof Error ? error.message : String(error));
    }
  }
  return goldens;
}
