/** `onnx-fuse inspect model.onnx` */
import { type Cli, type Runner, say } from './command.js';
import { inspectFile } from './inspect.js';
import { renderInspection } from './render.js';

export function inspectCommand(cli: Cli, run: Runner): void {
  cli.command(
    'inspect <model>',
    'Show every layer and what would fuse, or why not',
    (command) =>
      command
        .positional('model', { type: 'string', demandOption: true })
        .option('json', { type: 'boolean', default: false, describe: 'As JSON' }),
    (args) =>
      run(async () => {
        const inspection = inspectFile(args.model);
        say(args.json ? JSON.stringify(inspection, null, 2) : renderInspection(inspection));
        return 0;
      }),
  );
}
