/** `onnx-fuse in.onnx out.onnx` */
import { silent, stderrTalk } from '../../api/basics/progress.js';
import { checkTarget } from '../../api/basics/targets.js';
import { type Fusion, fuse, recover } from '../../api/commands/fuse.js';
import { loadConfig } from '../../api/settings/config.js';
import {
  conflictIn,
  type FlagValues,
  flagsIn,
  mapBitsOf,
  mergeFlags,
  requestOf,
} from '../../api/settings/flag-values.js';
import { loadPlugins } from '../../api/settings/plugin.js';
import { errors } from '../../ir/index.js';
import { registry } from '../../passes/index.js';
import type { fuseSpec } from '../options/fuse.js';
import type { ArgumentsOf } from '../options/spec.js';
import { withFlags } from '../text/flags.js';
import { renderReport } from '../text/render.js';
import type { Outcome } from './results.js';

export async function fuseCommand(args: ArgumentsOf<typeof fuseSpec>): Promise<Outcome> {
  const { input, output } = args;
  const { flags, plugins } = await settings(args);
  for (const target of [flags.report, flags['block-configs']]) checkTarget(target, [args.config, ...plugins], [output]);
  const result = await fusion(input, output, flags, plugins);
  const { spoken } = result;
  const said = spoken ? [renderSpoken(spoken)] : [];
  const { checks, dryRun, steps } = result;
  const isMeant = dryRun || steps.length === 0 || flags.verify === false;
  // That nobody looked is said where nothing else is.
  if (flags.quiet && checks.skipped !== null && !isMeant)
    stderrTalk().note(`not checked: ${withFlags(checks.skipped)}`);
  const render = (shown: Fusion): string => [...(flags.quiet ? [] : [renderReport(shown)]), ...said].join('\n');
  return { kind: 'fusion', result, render };
}

/** Runs with maps that are fitted for it, where those are asked for. */
async function fusion(input: string, output: string, flags: FlagValues, plugins: readonly string[]): Promise<Fusion> {
  const useless = flags.recover ? undefined : RECOVERY_FLAGS.find((name) => flags[name] !== undefined);
  if (useless)
    throw errors.usage(`--${useless}`, 'it has no effect without --recover', 'add --recover, or leave it out');
  const known = await loadPlugins(plugins);
  const passes = [...known.values()].filter((pass) => !registry.has(pass.id));
  const request = { ...requestOf(flags), input, output, passes, talk: flags.quiet ? silent : stderrTalk() };
  if (!flags.recover) return fuse(request);
  const { data, tokenizer, length } = flags;
  return recover({
    ...request,
    ...{ data, tokenizer, length },
    heldOut: flags['held-out'],
    maxTokens: flags['max-tokens'],
    quantizeMaps: mapBitsOf(flags['quantize-maps']),
    mapRank: flags['map-rank'],
  });
}

/** What is only of use to fit maps. */
const RECOVERY_FLAGS = ['quantize-maps', 'map-rank', 'data', 'held-out', 'tokenizer', 'length', 'max-tokens'] as const;

interface Arguments extends Readonly<Record<string, unknown>> {
  readonly config?: string | undefined;
  readonly preset?: string | undefined;
  readonly plugin?: readonly string[] | undefined;
}

/** The command line over the preset over the config file. */
async function settings(args: Arguments): Promise<{ flags: FlagValues; plugins: readonly string[] }> {
  const own = flagsIn(args, (flag) => `--${flag}`);
  const conflict = conflictIn(own);
  if (conflict) {
    throw errors.usage(`--${conflict.flag}`, `it has no effect beside --${conflict.beside}`, conflict.remedy);
  }
  const plugins = args.plugin ?? [];
  if (args.config === undefined) {
    if (args.preset === undefined) return { flags: own, plugins };
    throw errors.usage('--preset', 'presets are in config files, and none is named', 'name one with --config');
  }
  const config = await loadConfig(args.config, args.preset);
  return { flags: mergeFlags(config.flags, own), plugins: [...config.plugins, ...plugins] };
}

function renderSpoken({ before, after }: { readonly before: string; readonly after: string }): string {
  return `\nbefore: ${before}\n\nafter:  ${after}`;
}
