/** `onnx-fuse report plan.json -o report.html --verify verify.json --bench bench.json` */
import { report } from '../../api/commands/report.js';
import type { reportSpec } from '../options/report.js';
import type { ArgumentsOf } from '../options/spec.js';
import { give } from './command.js';

export async function reportCommand({
  plan,
  verify,
  bench,
  output,
  json,
}: ArgumentsOf<typeof reportSpec>): Promise<number> {
  await report({ plan, verify, bench, output });
  const render = (): string => `${output}: the plan and its evidence; open it in a browser`;
  return give({ kind: 'page', result: { page: output }, render }, json);
}
