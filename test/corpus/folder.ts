/**
 * The corpus: models that others' exporters made, in a folder beside the repository and not part of it. Only the tests in
 * this room and the benchmarks may look there; `npm test` never does.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ROOT } from '../helpers/paths.js';

/** The environment variable that names the folder. */
export const CORPUS_VARIABLE = 'ONNX_FUSE_CORPUS';

/** The folder of the corpus: `named`, else that of the environment, else `../shared/models`. Throws where there is none. */
export function findCorpus(named = process.env[CORPUS_VARIABLE]): string {
  const folder = resolve(named ?? join(ROOT, '..', 'shared', 'models'));
  if (existsSync(join(folder, 'INDEX.md'))) return folder;
  throw new Error(`there is no corpus in ${folder} (no INDEX.md); name its folder: npm run test:corpus -- FOLDER`);
}

/** Paths of all .onnx files, relative to the folder of the corpus, sorted. */
export function modelFiles(corpus: string): string[] {
  return readdirSync(corpus, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.onnx'))
    .map((file) => file.replaceAll('\\', '/'))
    .sort();
}

export interface IndexedModel {
  readonly file: string;
  /** The issue whose work it belongs to: 1 is the main job, 2 is breadth; empty for operator tests. */
  readonly issue: string;
  /** Whether onnxruntime runs it on a CPU as it came, in the words of the index. */
  readonly runs: string;
}

/** The rows of INDEX.md, and tales12, which its own README describes. */
export function indexedModels(corpus: string): IndexedModel[] {
  const rows = readFileSync(join(corpus, 'INDEX.md'), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').map((cell) => cell.trim()));
  const models = rows.map((cells) => ({
    file: (cells[1] ?? '').replaceAll('`', ''),
    issue: cells[2] ?? '',
    runs: cells.at(-2) ?? '',
  }));
  for (const name of ['dynamo18-fp16', 'dynamo18-fp32', 'ts17-fp32']) {
    models.push({ file: `tales12/tales12-${name}.onnx`, issue: '1', runs: 'runs' });
  }
  return models;
}
