/** `onnx-fuse inspect model.onnx` */

import { modelFile } from '../../api/folder/model-folder.js';
import { inspectFile } from '../../api/inspect/inspect.js';
import { renderInspection } from '../text/render.js';
import { type Cli, type Runner, show } from './command.js';

export function inspectCommand(cli: Cli, run: Runner): void {
  cli.command(
    'inspect <model>',
    'Show every layer, and what would be fused or why not',
    (command) =>
      command
        .positional('model', {
          type: 'string',
          demandOption: true,
          describe: 'The model (.onnx), or a folder with one',
        })
        .option('json', { type: 'boolean', default: false, describe: 'Print the layers as JSON' }),
    (args) =>
      run(async () => {
        const inspection = inspectFile(modelFile(args.model));
        show(inspection, renderInspection, args.json);
        return 0;
      }),
  );
}
