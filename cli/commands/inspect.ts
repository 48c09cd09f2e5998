/** `onnx-fuse inspect model.onnx` */

import { modelFile } from '../../api/folder/model-folder.js';
import { inspectFile } from '../../api/inspect/inspect.js';
import type { inspectSpec } from '../options/inspect.js';
import type { ArgumentsOf } from '../options/spec.js';
import { renderInspection } from '../text/inspection.js';
import { show } from './command.js';

export async function inspectCommand(args: ArgumentsOf<typeof inspectSpec>): Promise<number> {
  const inspection = inspectFile(modelFile(args.model));
  show(inspection, renderInspection, args.json);
  return 0;
}
