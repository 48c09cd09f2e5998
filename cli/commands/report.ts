/** `onnx-fuse report plan.json -o report.html --verify verify.json --bench bench.json` */
import { realpathSync } from 'node:fs';
import { apiErrors } from '../../api/basics/errors.js';
import { readJson, writeWhole } from '../../api/basics/small-file.js';
import { extrasOfBench, extrasOfVerify, renderReport } from '../../api/plan/page/index.js';
import { readPlanFile } from '../../api/plan/plan-file.js';
import { errors } from '../../ir/index.js';
import { type Cli, type Runner, say } from './command.js';

export function reportCommand(cli: Cli, run: Runner): void {
  cli.command(
    'report <plan>',
    'Draw a plan and its evidence on one HTML page',
    (command) =>
      command
        .positional('plan', { type: 'string', demandOption: true, describe: 'The plan.json of onnx-fuse plan' })
        .option('output', {
          alias: 'o',
          type: 'string',
          requiresArg: true,
          default: 'report.html',
          describe: 'Write the page here',
        })
        .option('verify', {
          type: 'string',
          requiresArg: true,
          describe: 'What verify --data --json printed, of the fused model',
        })
        .option('bench', { type: 'string', requiresArg: true, describe: 'What bench --json wrote, of both models' }),
    (args) =>
      run(async () => {
        const { plan, verify, bench, output } = args;
        for (const input of [plan, verify, bench]) if (input !== undefined) keepInput(input, output);
        const page = renderReport(readPlanFile(plan), {
          ...(verify === undefined ? {} : extrasOf(verify, extrasOfVerify, 'verify --data --json printed')),
          ...(bench === undefined ? {} : extrasOf(bench, extrasOfBench, 'bench a.onnx b.onnx --json wrote')),
        });
        writeWhole(output, page);
        say(`${output}: the plan and its evidence; open it in a browser`);
        return 0;
      }),
  );
}

/** @throws Diagnostic OF_EVIDENCE when there is nothing in the file that a report shows. */
function extrasOf<T extends object>(path: string, read: (value: unknown) => T, origin: string): T {
  const refuse = (place: string, why: string) => apiErrors.evidence(place, why, `give what onnx-fuse ${origin}`);
  const extras = read(readJson(path, refuse));
  if (Object.keys(extras).length === 0) throw refuse(path, 'it holds no measurement that a report shows');
  return extras;
}

/** @throws Diagnostic OF_USAGE when the output is one of the inputs. */
function keepInput(input: string, output: string): void {
  const real = (path: string): string => {
    try {
      return realpathSync(path);
    } catch {
      return path;
    }
  };
  if (real(input) === real(output)) throw errors.usage('-o', `'${output}' is an input`, 'name another file');
}
