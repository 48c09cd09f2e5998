/** `onnx-fuse passes` */

import { loadConfig } from '../../api/settings/config.js';
import { loadPlugins } from '../../api/settings/plugin.js';
import type { OptionSpec } from '../../passes/index.js';
import type { passesSpec } from '../options/passes.js';
import type { ArgumentsOf } from '../options/spec.js';
import { say } from './command.js';

export async function passesCommand(args: ArgumentsOf<typeof passesSpec>): Promise<number> {
  const config = args.config === undefined ? null : await loadConfig(args.config);
  const passes = await loadPlugins([...(config?.plugins ?? []), ...(args.plugin ?? [])]);
  for (const pass of passes.values()) {
    say(`${pass.id}  (${pass.effect})\n    ${pass.summary}`);
    for (const [name, spec] of Object.entries<OptionSpec<unknown>>(pass.options as never)) {
      say(`    ${name}: ${spec.help}${spec.effect ? `  (then ${spec.effect})` : ''}`);
    }
  }
  return 0;
}
