/** The real models beside the repository (../shared/models). They are not part of it, so tests can be without them. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The folder of the shared models, or null when this machine has none. ONNX_FUSE_SHARED names its parent. */
export function sharedModels(): string | null {
  const named = process.env['ONNX_FUSE_SHARED'];
  if (named !== undefined) return existsSync(join(named, 'models')) ? join(named, 'models') : null;
  for (let folder = process.cwd(); ; folder = dirname(folder)) {
    const models = join(folder, 'shared', 'models');
    if (existsSync(join(models, 'INDEX.md'))) return models;
    if (dirname(folder) === folder) return null;
  }
}

/** Paths of all .onnx files, relative to the folder of shared models, sorted; empty when there is none. */
export function listSharedModels(): string[] {
  const root = sharedModels();
  if (root === null) return [];
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.onnx'))
    .map((file) => file.replaceAll('\\', '/'))
    .sort();
}

/**
 * The folder of the shared models, for a test that cannot do without. A stranger's clone has none: the test then says so
 * in one line and returns. Where ONNX_FUSE_SHARED says that it is there, it must be.
 */
export function needSharedModels(test: string): string | null {
  const root = sharedModels();
  if (root !== null) return root;
  if (process.env['ONNX_FUSE_SHARED'] !== undefined) throw new Error(`${test}: ../shared/models is absent`);
  console.log(`skipped because ../shared is absent: ${test}`);
  return null;
}

export interface IndexedModel {
  readonly file: string;
  /** The issue whose work it belongs to: 1 is the main job, 2 is breadth; empty for operator tests. */
  readonly issue: string;
  /** Whether onnxruntime runs it on a CPU as it came, in the words of the index. */
  readonly runs: string;
}

/** The rows of INDEX.md, and tales12, which its own README describes. */
export function indexedModels(root: string): IndexedModel[] {
  const rows = readFileSync(join(root, 'INDEX.md'), 'utf8')
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
