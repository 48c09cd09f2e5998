/** `onnx-fuse print model.onnx` */

import { modelFile } from '../../api/folder/model-folder.js';
import { openHeader, printModel } from '../../ir/index.js';
import type { printSpec } from '../options/print.js';
import type { ArgumentsOf } from '../options/spec.js';
import { say } from './command.js';

export async function printCommand(args: ArgumentsOf<typeof printSpec>): Promise<number> {
  say(printModel(openHeader(modelFile(args.model))).trimEnd());
  return 0;
}
