/**
 * Every decoder of ../shared/models, unfused and fused, cut over ranks and run together on the CPU against the original.
 *
 *     node dist/test/bench/rank-table.js [--tp 2,4,8] [--only TEXT] [--style ort] [--json FILE]
 *
 * Prints a line for each: what was cut, how exact the ranks are together, or why they were not cut or not run.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { fuse, type ShardReport, shard } from '../../api/index.js';
import { Diagnostic, openModel } from '../../ir/index.js';
import { type CollectiveStyle, concatFfn, factsOf, layersOf } from '../../passes/index.js';
import { findCorpus, modelFiles } from '../corpus/folder.js';
import { checkBytes } from '../helpers/rank-bytes.js';

interface Row {
  readonly file: string;
  readonly fused: boolean;
  readonly tp: number;
  readonly attention: string;
  readonly ffn: string;
  /** All-reduces a token; branches that share a sum share one. */
  readonly allReduces: number | null;
  readonly relative: number | null;
  readonly tolerance: number | null;
  readonly bytes: string | null;
  readonly result: string;
}

/** The model with the attention of all layers but the first and last removed, and what can be fused, fused; null when nothing can. */
async function fusedForm(path: string, folder: string): Promise<string | null> {
  const { layers } = layersOf(openModel(path));
  const removable = layers.filter(
    ({ attention }, i) => attention && !attention.attention.blocked && (i > 0 || layers.length < 3),
  );
  const chosen = removable.map(({ index }) => index);
  const output = join(folder, 'fused.onnx');
  const report = await fuse({ input: path, output, removeAttention: chosen, keepLast: 0, verify: false });
  return factsOf(report, concatFfn).length > 0 ? output : null;
}

function counted(report: ShardReport, role: string): string {
  const all = report.branches.filter((branch) => branch.role === role);
  return `${all.filter(({ reason }) => reason === null).length}/${all.length}`;
}

async function rowOf(
  path: string,
  file: string,
  fused: boolean,
  tp: number,
  style: CollectiveStyle,
  out: string,
): Promise<Row> {
  const base = { file, fused, tp };
  const none = { attention: '-', ffn: '-', allReduces: null, relative: null, tolerance: null, bytes: null };
  try {
    const options = { ranks: tp, style, lmHead: 'gather', refuse: false, verify: true, force: true } as const;
    const report = await shard({ input: path, output: out, ...options });
    const reasons = [...new Set(report.branches.flatMap(({ reason }) => (reason === null ? [] : [reason])))];
    const { check, skipped } = report;
    const agrees = check && check.maxRelative <= check.tolerance;
    const state = check ? (agrees ? 'agrees' : 'DIFFERS') : `not run: ${skipped}`;
    return {
      ...base,
      attention: counted(report, 'attention'),
      ffn: counted(report, 'ffn'),
      allReduces: report.token.allReduces,
      relative: check?.maxRelative ?? null,
      tolerance: check?.tolerance ?? null,
      bytes: checkBytes(path, options),
      result: [state, ...reasons].join('; '),
    };
  } catch (error) {
    if (!(error instanceof Diagnostic)) throw new Error(`${file} at tp ${tp} brings the tool down`, { cause: error });
    const isCut = error.code !== 'OF_NOTHING_CUT';
    return { ...base, ...none, result: `${isCut ? 'FAILS' : 'not cut'}: ${error.message}`.slice(0, 300) };
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  const options = {
    tp: { type: 'string', default: '2,4,8' },
    only: { type: 'string' },
    style: { type: 'string', default: 'ort' },
    json: { type: 'string' },
  } as const;
  const { tp, only, style, json } = parseArgs({ options }).values;
  const root = findCorpus();
  const folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-ranks-'));
  const rows: Row[] = [];
  try {
    for (const file of modelFiles(root).filter((name) => only === undefined || name.includes(only))) {
      const path = join(root, file);
      try {
        if (layersOf(openModel(path)).layers.length === 0) continue;
      } catch (error) {
        if (error instanceof Diagnostic) continue;
        throw error;
      }
      const fused = await fusedForm(path, folder).catch((error: unknown) => {
        if (error instanceof Diagnostic) return null;
        throw error;
      });
      for (const form of fused ? [path, fused] : [path]) {
        for (const ranks of tp.split(',').map(Number)) {
          const row = await rowOf(form, file, form !== path, ranks, style as CollectiveStyle, join(folder, 'out'));
          rows.push(row);
          const error = row.relative === null ? '' : `${row.relative.toExponential(1)} of ${row.tolerance}`;
          console.log(
            `${file} ${row.fused ? 'fused ' : ''}tp ${ranks}: attention ${row.attention}, FFN ${row.ffn}, ${row.allReduces} all-reduces ${error} ${row.result}${row.bytes ? `; bytes: ${row.bytes}` : ''}`,
          );
        }
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const count = (test: (row: Row) => boolean): number => rows.filter(test).length;
  const kind = ({ result }: Row): string => result.split(/[:;]/)[0] as string;
  for (const name of new Set(rows.map(kind))) console.log(`${name}: ${count((row) => kind(row) === name)}`);
  if (json) writeFileSync(json, `${JSON.stringify(rows, null, 1)}\n`);
}

await main();
