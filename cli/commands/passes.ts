/** `onnx-fuse passes` */
import { loadConfig } from '../../api/settings/config.js';
import { loadPlugins } from '../../api/settings/plugin.js';
import type { OptionSpec } from '../../passes/index.js';
import type { passesSpec } from '../options/passes.js';
import type { ArgumentsOf } from '../options/spec.js';
import type { ListedPasses, Outcome } from './results.js';

export async function passesCommand(args: ArgumentsOf<typeof passesSpec>): Promise<Outcome> {
  const config = args.config === undefined ? null : await loadConfig(args.config);
  const passes = await loadPlugins([...(config?.plugins ?? []), ...(args.plugin ?? [])]);
  const listed = [...passes.values()].map(({ id, effect, summary, options }) => ({
    id,
    effect,
    summary,
    options: Object.entries<OptionSpec<unknown>>(options as never).map(([name, spec]) => ({
      name,
      help: spec.help,
      effect: spec.effect ?? effect,
    })),
  }));
  return { kind: 'passes', result: { passes: listed }, render: renderPasses };
}

function renderPasses({ passes }: ListedPasses): string {
  const lines = passes.flatMap(({ id, effect, summary, options }) => [
    `${id}  (${effect})`,
    `    ${summary}`,
    ...options.map(
      (each) => `    ${each.name}: ${each.help}${each.effect === effect ? '' : `  (then ${each.effect})`}`,
    ),
  ]);
  return lines.join('\n');
}
