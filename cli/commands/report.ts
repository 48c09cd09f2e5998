/** `onnx-fuse report plan.json -o report.html --verify verify.json --bench bench.json` */
import { report } from '../../api/commands/report.js';
import type { reportSpec } from '../options/report.js';
import type { ArgumentsOf } from '../options/spec.js';
import { applyingCommand, sharedPath } from '../text/command-line.js';
import type { Outcome } from './results.js';

export async function reportCommand(args: ArgumentsOf<typeof reportSpec>): Promise<Outcome> {
  const { plan, verify, bench, output } = args;
  const command = (model: string): string => applyingCommand(model, sharedPath(plan));
  await report({ plan, verify, bench, output, command });
  const render = (): string => `${output}: the plan and its evidence; open it in a browser`;
  return { kind: 'page', result: { page: output }, render };
}
