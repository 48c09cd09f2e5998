/** `onnx-fuse inspect model.onnx` */
import { inspect } from '../../api/commands/model.js';
import type { inspectSpec } from '../options/inspect.js';
import type { ArgumentsOf } from '../options/spec.js';
import { renderInspection } from '../text/inspection.js';
import type { Outcome } from './results.js';

export async function inspectCommand(args: ArgumentsOf<typeof inspectSpec>): Promise<Outcome> {
  const result = inspect(args.model);
  return { kind: 'inspection', result, render: renderInspection };
}
