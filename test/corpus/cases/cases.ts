/**
 * Runs cases of `../cases` beside the corpus: real files on which an earlier version was wrong. Each row of its INDEX.md has
 * tests here, whose titles begin with what the row calls its file; `rows.test.ts` fails for a row without one.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Report } from '../../../api/fuse/report.js';
import type { Inspection } from '../../../api/index.js';
import { openModel } from '../../../ir/index.js';
import { ROOT } from '../../helpers/paths.js';
import { type Outcome, runCli } from '../../helpers/workspace.js';
import { findCorpus } from '../folder.js';

/** The folder of the cases. Throws where there is none: the tests that need it cannot do without. */
export function caseFile(...path: string[]): string {
  const folder = join(findCorpus(), '..', 'cases');
  if (!existsSync(join(folder, 'INDEX.md'))) throw new Error(`there are no cases in ${folder}`);
  return join(folder, ...path);
}

export interface Fused extends Outcome {
  /** What was written; null where nothing was. */
  readonly report: Report | null;
  readonly output: string;
  readonly nodes: number;
}

/** Fuses a case into `folder`; the report is read when there is one. */
export async function fuseCase(folder: string, input: string, ...flags: readonly string[]): Promise<Fused> {
  const [output, file] = [join(folder, 'out.onnx'), join(folder, 'report.json')];
  const ran = await runCli(input, output, ...flags, '--report', file, '--quiet');
  const report = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Report) : null;
  const nodes = existsSync(output) ? openModel(output).graph.nodeCount : 0;
  return { ...ran, report, output, nodes };
}

const LOAD = `require('onnxruntime-node').InferenceSession.create(process.argv[1])
  .then(() => process.exit(0), (error) => { console.error(error.message); process.exit(1); });`;

/** onnxruntime loads the model, and finds no size in it that is not so. What it warns of is printed past this process. */
export function mustLoad(model: string): void {
  const { status, stderr } = spawnSync(process.execPath, ['-e', LOAD, model], { cwd: ROOT, encoding: 'utf8' });
  assert.is(status, 0, stderr);
  assert.not.match(stderr, /MergeShapeInfo/);
}

/** Fuses a case that must come out right: it loads, the algebra holds, and as many runs become one as said. */
export async function mustFuse(
  folder: string,
  input: string,
  runs: number,
  ...flags: readonly string[]
): Promise<Fused> {
  const fused = await fuseCase(folder, input, ...flags);
  assert.is(fused.code, 0, fused.stderr);
  const { algebra, skipped } = (fused.report as Report).checks;
  assert.ok(algebra?.pass, `${skipped} ${JSON.stringify(algebra)}`);
  assert.is(fusedRuns(fused.report as Report).length, runs, fused.stdout);
  mustLoad(fused.output);
  return fused;
}

/** The layers that lost a part, in the order in which it was done. */
export function removedFrom(fused: Fused, part: 'attention' | 'ffn'): readonly number[] {
  const facts = fused.report?.facts as Record<string, readonly { readonly layer: number }[]> | undefined;
  return (facts?.[`remove-${part}`] ?? []).map(({ layer }) => layer);
}

/** The layers of each run that became one. */
export function fusedRuns(report: Report): (readonly string[])[] {
  const facts =
    (report.facts as Record<string, readonly { readonly layers?: readonly string[] }[]>)['concat-ffn'] ?? [];
  return facts.flatMap(({ layers }) => (layers ? [layers] : []));
}

export async function inspectCase(input: string): Promise<Inspection> {
  const { code, stdout, stderr } = await runCli('inspect', input, '--json');
  assert.is(code, 0, stderr);
  return JSON.parse(stdout) as Inspection;
}

/** One coded line on stderr, and nothing written. */
export function assertRefused({ code, stderr }: Outcome, pattern: RegExp, exit = 1): void {
  assert.is(code, exit, stderr);
  const lines = stderr
    .trim()
    .split('\n')
    .filter((line) => !/^warning/.test(line));
  assert.is(lines.length, 1, stderr);
  assert.match(stderr, pattern);
}
