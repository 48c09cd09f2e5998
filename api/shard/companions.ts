/** What comes along with the ranks of a model: its tokenizer, and of a folder its configs and papers. */
import { existsSync } from 'node:fs';
import { copyFile, mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { errors, openModel, reasonOf } from '../../ir/index.js';
import { companionsOf } from '../folder/companions.js';
import { isFolder } from '../folder/inside.js';
import { GENAI, readModelFolder } from '../folder/model-folder.js';
import { tokenizersOf } from '../tokens/text-codec.js';

/** The program that runs ranks lies beside its source, which is published; what runs lies in dist. */
const PACKAGE = dirname(createRequire(import.meta.url).resolve('onnx-fuse/package.json'));
const RUNNER = join(PACKAGE, 'api', 'shard', 'run_ranks.py');
const RUNNER_NAME = basename(RUNNER);
const TOKENIZER = ['tokenizer.json', 'tokenizer_config.json'];
/** Other models and what belongs to them, and a config that names the one file of a whole model. */
const STAYS = /\.onnx$|\.onnx_adapter$|[._]data([._]\d+)?$|\.bin$/;

/** A file to copy, and its name in the output. */
export interface Companion {
  readonly from: string;
  readonly to: string;
}

/** Of a folder what lies around its model, of a file its tokenizer. `runs`: also the program that runs ranks. */
export function rankCompanions(input: string, model: string, runs: boolean): Companion[] {
  const runner = runs ? [{ from: RUNNER, to: RUNNER_NAME }] : [];
  if (!isFolder(input)) {
    const found = tokenizersOf(model).find((file) => existsSync(file));
    const names = found === undefined ? [] : TOKENIZER.filter((name) => existsSync(join(dirname(found), name)));
    return [...names.map((name) => ({ from: join(dirname(found as string), name), to: name })), ...runner];
  }
  const { copied } = companionsOf(readModelFolder(input), openModel(model));
  const names = copied.filter((name) => !STAYS.test(name) && name !== GENAI && name !== RUNNER_NAME);
  return [...names.map((name) => ({ from: join(input, name), to: name })), ...runner];
}

/** Copies them into `folder`. @throws Diagnostic OF_WRITE. */
export async function copyCompanions(companions: readonly Companion[], folder: string): Promise<void> {
  for (const { from, to } of companions) {
    const target = join(folder, to);
    try {
      await mkdir(dirname(target), { recursive: true });
      await copyFile(from, target);
    } catch (error) {
      throw errors.writeFailed(target, reasonOf(error));
    }
  }
}
