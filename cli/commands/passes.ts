/** `onnx-fuse passes` */
import { loadConfig } from '../../api/settings/config.js';
import { loadPlugins } from '../../api/settings/plugin.js';
import type { OptionSpec } from '../../passes/index.js';
import type { passesSpec } from '../options/passes.js';
import type { ArgumentsOf } from '../options/spec.js';
import { give } from './command.js';

export async function passesCommand(args: ArgumentsOf<typeof passesSpec>): Promise<number> {
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
  return give({ kind: 'passes', result: { passes: listed }, render: renderPasses }, args.json);
}

interface ListedPasses {
  readonly passes: readonly {
    readonly id: string;
    readonly effect: string;
    readonly summary: string;
    /** The effect that the pass has with the option. */
    readonly options: readonly { readonly name: string; readonly help: string; readonly effect: string }[];
  }[];
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
