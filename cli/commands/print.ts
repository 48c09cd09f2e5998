/** `onnx-fuse print model.onnx` */
import { modelFile } from '../../api/folder/model-folder.js';
import { openHeader, printModel } from '../../ir/index.js';
import { type Cli, type Runner, say } from './command.js';

export function printCommand(cli: Cli, run: Runner): void {
  cli.command(
    'print <model>',
    'Print the model in ONNX textual syntax',
    (command) =>
      command.positional('model', {
        type: 'string',
        demandOption: true,
        describe: 'The model (.onnx), or a folder with one',
      }),
    (args) =>
      run(async () => {
        say(printModel(openHeader(modelFile(args.model))).trimEnd());
        return 0;
      }),
  );
}
