/** Models as programs hold them: opened, looked at, saved. */
import { basename, dirname, join, resolve } from 'node:path';
import { type Model, openModel, type SaveOptions, saveModel } from '../../ir/index.js';
import { checkOptions, checkType } from '../basics/options.js';
import { modelFile } from '../folder/model-folder.js';
import { type Inspection, inspectFile, inspectModel } from '../inspect/inspect.js';

/**
 * Opens an .onnx file, or that of a folder. The graph is read; weights stay on disk until something asks for their bytes,
 * so models larger than memory open in an instant. The file must stay as it is for as long as the model is used.
 *
 * @throws Diagnostic `OF_NO_SUCH_FILE`, `OF_NOT_ONNX`, `OF_TRUNCATED` and others that say what is wrong with the file.
 */
export function open(path: string): Model {
  checkType('path', path, 'string');
  return openModel(modelFile(path));
}

/** What `save` wrote. */
export interface Saved {
  /** Absolute paths; the hashes are of the files' content, null unless `hash` was set. */
  readonly files: readonly { readonly path: string; readonly bytes: number; readonly sha256: string | null }[];
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

/**
 * Writes a model to `path`, weights beside it in `path`.data when the input had them in a file of their own or with
 * `external: true`. The old output stays until the new one is complete; memory is bounded, whatever the size.
 *
 * @throws Diagnostic `OF_OUTPUT_IS_INPUT` (weights are still read from the input), `OF_WRITE`, `OF_CHANGED`.
 */
export async function save(model: Model, path: string, options: SaveOptions = {}): Promise<Saved> {
  checkType('model', model, 'object');
  checkType('path', path, 'string');
  checkOptions('SaveOptions', options);
  const staged = await saveModel(model, path, options);
  const folder = dirname(resolve(path));
  return {
    files: staged.files.map(({ path, bytes, sha256 }) => ({ path: join(folder, basename(path)), bytes, sha256 })),
    bytesRead: staged.bytesRead,
    bytesWritten: staged.bytesWritten,
  };
}

/**
 * What a model consists of, layer by layer, and which runs of FFNs would fuse, or why not: what `onnx-fuse inspect` shows.
 *
 * @param model a path (an .onnx file, or a folder with one), or a model
 * @throws Diagnostic as `open` does
 */
export function inspect(model: string | Model): Inspection {
  checkType('model', model, 'object | string');
  return typeof model === 'string' ? inspectFile(modelFile(model)) : inspectModel(model, 'model');
}
