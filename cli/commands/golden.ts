/** `onnx-fuse golden model.onnx expected.golden` */
import { apiErrors } from '../../api/basics/errors.js';
import { readText, writeWhole } from '../../api/basics/small-file.js';
import { checkTarget } from '../../api/basics/targets.js';
import { modelFile } from '../../api/folder/model-folder.js';
import { goldenDiff, goldenText } from '../../api/inspect/golden.js';
import { errors, openModel } from '../../ir/index.js';
import type { goldenSpec } from '../options/golden.js';
import type { ArgumentsOf } from '../options/spec.js';
import { give } from './command.js';

export async function goldenCommand(args: ArgumentsOf<typeof goldenSpec>): Promise<number> {
  const { model: path, expected, accept, json } = args;
  const found = goldenText(openModel(modelFile(path)));
  const recorded = read(expected);
  const diff = recorded === null ? null : goldenDiff(recorded, found);
  const same = recorded !== null && diff === null;
  if (accept && !same) {
    checkTarget(expected, [modelFile(path)]);
    await writeWhole(expected, found);
  }
  const remedy = `if this is right: onnx-fuse golden ${quoted(path)} ${quoted(expected)} --accept`;
  if (recorded === null && !accept) throw apiErrors.golden(expected, 'there is no such file to compare with', remedy);
  const what = same ? `${path} is as recorded in ${expected}` : `${path} is now recorded in ${expected}`;
  const isWrong = !same && !accept;
  return give(
    {
      kind: 'comparison',
      result: { same, recorded: accept && !same, diff },
      render: () => (isWrong ? (diff as string) : what),
      failure: isWrong ? apiErrors.golden(path, `it is not as recorded in ${expected}`, remedy) : null,
    },
    json,
  );
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
