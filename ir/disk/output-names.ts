/** How the files of an output are called. */
import { basename } from 'node:path';

/** How data files are called: out.onnx.data, out.onnx.data.1... or, as transformers.js wants it, out.onnx_data, out.onnx_data_1... */
export type DataNames = 'point' | 'underscore';

/**
 * The name of a data file of the output `outPath`: out.onnx.data, out.onnx.data.1, out.onnx.data.2 and so on. onnxruntime
 * takes any name, in any number, beside the model; transformers.js looks for underscores in place of the points.
 */
export function dataNameOf(outPath: string, index: number, names: DataNames = 'point'): string {
  const mark = names === 'point' ? '.' : '_';
  return `${basename(outPath)}${mark}data${index === 0 ? '' : `${mark}${index}`}`;
}

/** Whether a run that writes `base` may write a file called `name` beside it: the model, the folder, or a data file. */
export function isOutputName(base: string, name: string): boolean {
  if (name === base) return !/[\\/]/.test(name) && name !== '..' && name !== '.';
  return name.startsWith(base) && /^[._]data([._]\d{1,9})?$/.test(name.slice(base.length));
}
