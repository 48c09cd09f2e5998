/** `onnx-fuse golden model.onnx expected.golden` */

import { apiErrors } from '../../api/basics/errors.js';
import { readText, writeWhole } from '../../api/basics/small-file.js';
import { checkTarget } from '../../api/basics/targets.js';
import { modelFile } from '../../api/folder/model-folder.js';
import { goldenDiff, goldenText } from '../../api/inspect/golden.js';
import { errors, openModel } from '../../ir/index.js';
import type { goldenSpec } from '../options/golden.js';
import type { ArgumentsOf } from '../options/spec.js';
import { say } from './command.js';

export async function goldenCommand(args: ArgumentsOf<typeof goldenSpec>): Promise<number> {
  return compareGolden(args.model, args.expected, args.accept);
}

async function compareGolden(path: string, expected: string, accept: boolean): Promise<number> {
  const found = goldenText(openModel(modelFile(path)));
  const recorded = read(expected);
  const diff = recorded === null ? null : goldenDiff(recorded, found);
  if (recorded !== null && diff === null) {
    say(`${path} is as recorded in ${expected}`);
    return 0;
  }
  if (accept) {
    checkTarget(expected, [modelFile(path)]);
    await writeWhole(expected, found);
    say(`${path} is now recorded in ${expected}`);
    return 0;
  }
  const remedy = `if this is right: onnx-fuse golden ${quoted(path)} ${quoted(expected)} --accept`;
  if (diff === null) throw apiErrors.golden(expected, 'there is no such file to compare with', remedy);
  say(diff);
  throw apiErrors.golden(path, `it is not as recorded in ${expected}`, remedy);
}

/** Git may have turned line ends into CRLF. */
function read(path: string): string | null {
  try {
    const refuse = (place: string, why: string) => apiErrors.golden(place, why, 'name a file that golden wrote');
    return readText(path, refuse).replaceAll('\r\n', '\n');
  } catch (error) {
    if (errors.noSuchFile.is(error)) return null;
    throw error;
  }
}

/** A word as a shell reads it back. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
