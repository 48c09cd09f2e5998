/** `onnx-fuse print model.onnx` */
import { modelFile } from '../../api/folder/model-folder.js';
import { openHeader, printModel } from '../../ir/index.js';
import type { printSpec } from '../options/inspect.js';
import type { ArgumentsOf } from '../options/spec.js';
import type { Outcome } from './results.js';

export async function printCommand(args: ArgumentsOf<typeof printSpec>): Promise<Outcome> {
  const text = printModel(openHeader(modelFile(args.model))).trimEnd();
  // The text is shown as it is: it is written so that nothing in it is more than text.
  return { kind: 'text', result: { text }, render: () => text };
}
