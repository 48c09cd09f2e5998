/**
 * What becomes of every model of ../shared/models: the layers found, what fuses once the attention of all removable
 * layers but the first is gone, and how exact the result is; or why it was left.
 *
 *     npm run table -- [--only TEXT] [--write]
 *
 * Prints a Markdown table; --write puts it between the markers in docs/compatibility.md as well. Models of two layers lose both
 * attentions, or nothing could be consecutive. Files that INDEX.md marks for no issue (operator tests) share a row per
 * repository, with their reasons counted, unless something in them fuses.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { fuse, type Inspection, inspectModel, type Report } from '../../api/index.js';
import { Diagnostic, openHeader } from '../../ir/index.js';
import { counted } from '../../ir/visible.js';
import { concatFfn, type FusedRun, factsOf, fuseSteps, runPipeline } from '../../passes/index.js';
import { findCorpus, indexedModels, modelFiles } from '../corpus/folder.js';

const BEGIN = '<!-- begin of the table: npm run table -- --write -->';
const END = '<!-- end of the table -->';
/** The end of every reason must fit on a line. */
const LONGEST_REASON = 200;

interface Row {
  readonly file: string;
  readonly layers: string;
  readonly fused: string;
  readonly result: string;
}

/** The row of one model; a user's mistake is what the file is to us, and its message is the reason. */
async function rowOf(root: string, file: string, folder: string): Promise<Row> {
  const path = join(root, file);
  let layers = '-';
  let fused = '-';
  try {
    const found = inspectModel(openHeader(path), path);
    layers = layersText(found);
    if (!found.layers.some((layer) => layer.ffn.width !== null)) {
      return { file, layers, fused, result: short(found.model.reason ?? commonReason(unfusable(found))) };
    }
    const chosen = chosenLayers(found);
    const options = { removeAttention: chosen, keepLast: 0 };
    // Files that came without their weights show at least what would be done.
    const plan = runPipeline(openHeader(path), fuseSteps(options));
    fused = fusedText(factsOf(plan, concatFfn)) || '-';
    const report = await fuse({ ...options, input: path, output: join(folder, 'out.onnx'), force: true });
    fused = fusedText(factsOf(report, concatFfn)) || '-';
    return { file, layers, fused, result: resultText(report, chosen, root) };
  } catch (error) {
    if (!(error instanceof Diagnostic)) throw new Error(`${file} brings the tool down`, { cause: error });
    const what = error.code === 'OF_EXTERNAL_MISSING' ? 'not written' : 'refused';
    return { file, layers, fused, result: short(`${what}: ${refusal(error, root)}`) };
  }
}

/** What is wrong, without the code before and the remedy behind. */
function refusal({ message, code, remedy }: Diagnostic, root: string): string {
  return message.slice(code.length + 1, -(remedy.length + 2)).replaceAll(`${root}/`, '');
}

/** Layers whose attention goes: all removable ones but the model's first. */
function chosenLayers({ layers }: Inspection): number[] {
  return layers
    .filter((layer, i) => layer.attention.removable && (i > 0 || layers.length < 3))
    .map((layer) => layer.index);
}

function unfusable({ layers }: Inspection): string[] {
  return layers.map(({ attention, ffn }) => ffn.reason ?? attention.reason ?? 'it has no FFN');
}

function layersText({ layers }: Inspection): string {
  const attentions = layers.filter((layer) => layer.attention.present).length;
  const ffns = layers.filter((layer) => layer.ffn.width !== null).length;
  return layers.length === 0 ? '0' : `${layers.length} (${attentions}/${ffns})`;
}

function fusedText(runs: readonly FusedRun[]): string {
  return runs
    .map(({ layers, widths, fusedWidth }) => {
      const isEven = widths.every((width) => width === widths[0]);
      const from = layers.length > 2 ? `${layers[0]}-${layers.at(-1)}` : layers.join(', ');
      return `${from}: ${isEven ? `${widths.length} x ${widths[0]}` : widths.join('+')} -> ${fusedWidth}`;
    })
    .join('; ');
}

function resultText(report: Report, chosen: readonly number[], root: string): string {
  const { left, layers, original } = report;
  const runs = factsOf(report, concatFfn);
  const others = left.filter(({ layer }) => chosen.length === 0 || chosen.includes(Number(layer)));
  const reasons = (others.length > 0 ? others : left).map(({ reason }) => reason);
  if (runs.length > 0) {
    const rest = others.map(({ layer, reason }) => `; left ${layer}: ${reason}`)[0] ?? '';
    return short(`${checkText(report).replaceAll(`${root}/`, '')}${rest}`);
  }
  const isAlone = layers === 1 && original[0]?.ffnWidth !== null;
  return isAlone ? 'one layer: there is nothing to fuse it with' : short(commonReason(reasons));
}

function checkText({ checks }: Report): string {
  const { algebra, drift, skipped } = checks;
  if (!algebra)
    return `not run: ${(skipped ?? '').replace(/OF_RUNTIME [^:]*: /, '').replace(/, (with )?node .*/i, '')}`;
  const error = `${algebra.maxRelative.toExponential(1)} (${algebra.precision})`;
  if (!algebra.pass) return `**fails**: ${error}`;
  // Fixtures full of zeros: nothing that happens to their layers shows.
  return algebra.maxAbsolute === 0 && drift?.maxKl === 0 ? '0, but its outputs do not depend on its layers' : error;
}

/** The reason of most layers, the first of them where several are as frequent. */
function commonReason(reasons: readonly string[]): string {
  const [most] = tally(reasons);
  return most?.[0] ?? 'nothing to fuse';
}

function tally(items: readonly string[]): (readonly [item: string, count: number])[] {
  const counts = new Map<string, number>();
  for (const item of items) counts.set(item, (counts.get(item) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

/** One line that no table trips over. */
function short(text: string): string {
  const line = text.replace(/\s+/g, ' ').replaceAll('|', '\\|').trim();
  return line.length > LONGEST_REASON ? `${line.slice(0, LONGEST_REASON)}...` : line;
}

/** One row for the files of a repository that hold no model: how many were left for which reason. */
function summary(folder: string, rows: readonly Row[]): Row {
  const reasons = tally(rows.map(({ result }) => result.replace(/'[^']*'|`[^`]*`/g, "'...'").replace(/\b\d+\b/g, 'n')));
  const result = reasons.map(([reason, count]) => `${count}: ${reason}`).join('<br>');
  return {
    file: `${folder}/ (${counted(rows.length, 'file')} without a decoder to fuse)`,
    layers: '',
    fused: '-',
    result,
  };
}

function markdown(rows: readonly Row[]): string {
  const lines = rows.map(({ file, layers, fused, result }) => `| \`${file}\` | ${layers} | ${fused} | ${result} |`);
  const head = '| file | layers (attention/FFN) | fused: layers, widths | algebra error, or why it was left |';
  return [head, '|---|---|---|---|', ...lines].join('\n');
}

function writeReadme(table: string): void {
  const path = 'docs/compatibility.md';
  const text = readFileSync(path, 'utf8');
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`${path} lacks the lines ${BEGIN} and ${END}`);
  writeFileSync(path, `${text.slice(0, begin + BEGIN.length)}\n\n${table}\n\n${text.slice(end)}`);
}

async function main(): Promise<void> {
  const options = { only: { type: 'string' }, write: { type: 'boolean' } } as const;
  const { only, write } = parseArgs({ options }).values;
  const root = findCorpus();
  const issues = new Map(indexedModels(root).map(({ file, issue }) => [file, issue]));
  const files = modelFiles(root).filter((file) => only === undefined || file.includes(only));
  const folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-table-'));
  const rows: Row[] = [];
  const rest = new Map<string, Row[]>();
  try {
    for (const [i, file] of files.entries()) {
      const row = await rowOf(root, file, folder);
      if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${i + 1}/${files.length} ${file}`.slice(0, 110));
      const owner = file.split('/').slice(0, 2).join('/');
      if (issues.get(file) || row.fused !== '-') rows.push(row);
      else rest.set(owner, [...(rest.get(owner) ?? []), row]);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
    if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  }
  const table = markdown([...rows, ...[...rest].map(([owner, some]) => summary(owner, some))]);
  console.log(table);
  if (write) writeReadme(table);
}

await main();
