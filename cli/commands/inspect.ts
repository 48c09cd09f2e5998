/** `onnx-fuse inspect model.onnx` */
import { inspect } from '../../api/commands/model.js';
import type { inspectSpec } from '../options/inspect.js';
import type { ArgumentsOf } from '../options/spec.js';
import { renderInspection } from '../text/inspection.js';
import { give } from './command.js';

export async function inspectCommand(args: ArgumentsOf<typeof inspectSpec>): Promise<number> {
  const result = inspect(args.model);
  return give({ kind: 'inspection', result, render: renderInspection }, args.json);
}
