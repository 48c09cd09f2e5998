/** `golden`: a model held against the file that it was recorded in. */
import { errors } from '../../ir/index.js';
import { apiErrors } from '../basics/errors.js';
import { checkOptions, checkType } from '../basics/options.js';
import { readText, writeWhole } from '../basics/small-file.js';
import { checkTarget } from '../basics/targets.js';
import { modelFile } from '../folder/model-folder.js';
import { goldenDiff, goldenText } from '../inspect/golden.js';
import { open } from './model.js';

/** How a model compares with what was recorded. */
export interface GoldenComparison {
  /** Whether it was as recorded before. */
  readonly same: boolean;
  /** Whether it was recorded now. */
  readonly recorded: boolean;
  /** A unified diff, cut to 500 lines; null where nothing differs, or nothing was recorded before. */
  readonly diff: string | null;
}

/** What to do with a difference. */
export interface GoldenOptions {
  /** Record the model as it is now; false by default. */
  readonly accept?: boolean | undefined;
}

/**
 * Compares the printed graph of a model, with hashes for weights, with the file that it was recorded in, or records it there:
 * what `onnx-fuse golden` does. `goldenText` gives the text alone.
 *
 * @param model an .onnx file, or a folder with one
 * @param expected the file that it was recorded in
 * @throws Diagnostic OF_GOLDEN where nothing is recorded yet, OF_OUTPUT_IS_INPUT, OF_WRITE, and those of reading
 */
export async function golden(model: string, expected: string, options: GoldenOptions = {}): Promise<GoldenComparison> {
  checkType('expected', expected, 'string');
  checkOptions('GoldenOptions', options);
  const { accept = false } = options;
  if (accept) checkTarget(expected, [modelFile(model)]);
  const found = goldenText(open(model));
  const recorded = read(expected);
  if (recorded === null && !accept) throw apiErrors.golden(expected, 'there is no such file to compare with');
  const diff = recorded === null ? null : goldenDiff(recorded, found);
  const same = recorded !== null && diff === null;
  if (accept && !same) await writeWhole(expected, found);
  return { same, recorded: accept && !same, diff };
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
