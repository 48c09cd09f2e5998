/** `onnx-fuse passes` */

import { loadConfig } from '../../api/settings/config.js';
import { loadPlugins } from '../../api/settings/plugin.js';
import type { OptionSpec } from '../../passes/index.js';
import { type Cli, PLUGIN_OPTIONS, type Runner, say } from './command.js';

export function passesCommand(cli: Cli, run: Runner): void {
  cli.command(
    'passes',
    'List the passes and their options for --pipeline',
    (command) => command.options(PLUGIN_OPTIONS),
    (args) =>
      run(async () => {
        const config = args.config === undefined ? null : await loadConfig(args.config);
        const passes = await loadPlugins([...(config?.plugins ?? []), ...(args.plugin ?? [])]);
        for (const pass of passes.values()) {
          say(`${pass.id}  (${pass.effect})\n    ${pass.summary}`);
          for (const [name, spec] of Object.entries<OptionSpec<unknown>>(pass.options as never)) {
            say(`    ${name}: ${spec.help}${spec.effect ? `  (then ${spec.effect})` : ''}`);
          }
        }
        return 0;
      }),
  );
}
