/** `onnx-fuse in.onnx out.onnx` */
import { join } from 'node:path';
import { parseByteSize } from '../../api/basics/byte-size.js';
import { apiErrors } from '../../api/basics/errors.js';
import { packageVersion } from '../../api/basics/package-version.js';
import { silent, stderrTalk } from '../../api/basics/progress.js';
import { writeJson } from '../../api/basics/small-file.js';
import { fuseFolder, isFolder, readModelFolder, writeBlockConfigs } from '../../api/folder/folder.js';
import { type FuseRequest, fileFact, fuse } from '../../api/fuse/fuse.js';
import { fuseOptionsOf, readPlanFile } from '../../api/plan/plan-file.js';
import { loadConfig } from '../../api/settings/config.js';
import { conflictIn, type FlagValues, flagsIn, mergeFlags, yargsOptions } from '../../api/settings/flags.js';
import { loadPlugins } from '../../api/settings/plugin.js';
import { continueText } from '../../api/verify/story.js';
import { errors } from '../../ir/index.js';
import { type FuseOptions, registry } from '../../passes/index.js';
import { renderReport } from '../text/render.js';
import { type Cli, PLUGIN_OPTIONS, type Runner, say } from './command.js';

export function fuseCommand(cli: Cli, run: Runner): void {
  cli.command(
    '$0 [input] [output]',
    'Fuse a model',
    (command) =>
      command
        .positional('input', { type: 'string', describe: 'The model, .onnx, or a folder with one' })
        .positional('output', { type: 'string', describe: 'Where the fused model goes, a folder if the input is one' })
        .options(yargsOptions())
        .options(PLUGIN_OPTIONS)
        .option('preset', { type: 'string', describe: 'Use this preset of the config file' }),
    (args) =>
      run(async () => {
        if (args['version']) {
          say(await packageVersion());
          return 0;
        }
        const { input, output } = args as { input?: string; output?: string };
        if (!input || !output) throw errors.usage('', 'an input and an output are needed', 'see onnx-fuse --help');
        const { flags, plugins } = await settings(args);
        await fuseFiles(input, output, flags, plugins);
        return 0;
      }),
  );
}

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
    throw errors.usage(`--${conflict.flag}`, `has no effect beside --${conflict.beside}`, conflict.remedy);
  }
  const plugins = args.plugin ?? [];
  if (args.config === undefined) {
    if (args.preset === undefined) return { flags: own, plugins };
    throw errors.usage('--preset', 'presets are in config files', 'name one with --config');
  }
  const config = await loadConfig(args.config, args.preset);
  return { flags: mergeFlags(config.flags, own), plugins: [...config.plugins, ...plugins] };
}

async function fuseFiles(input: string, output: string, flags: FlagValues, plugins: readonly string[]): Promise<void> {
  const known = await loadPlugins(plugins);
  const passes = [...known.values()].filter((pass) => !registry.has(pass.id));
  const isDirectory = isFolder(input);
  const modelFile = isDirectory ? join(input, readModelFolder(input).model) : input;
  const request = { ...requestOf(flags), ...(flags.plan === undefined ? {} : await planned(flags.plan, modelFile)) };
  const report = await (isDirectory ? fuseFolder : fuse)({ ...request, input, output, passes });
  if (flags['block-configs'] !== undefined && !flags['dry-run'])
    await writeBlockConfigs(flags['block-configs'], report, input);
  if (flags.report !== undefined) writeJson(flags.report, report);
  if (!flags.quiet) say(renderReport(report));
  if (flags.prompt !== undefined && !flags['dry-run']) {
    const tokens = flags.tokens ?? 120;
    const inFolder = isDirectory ? readModelFolder(input).model : '';
    say(`\nbefore: ${flags.prompt}${await continueText(join(input, inFolder), flags.prompt, tokens)}`);
    say(`\nafter:  ${flags.prompt}${await continueText(join(output, inFolder), flags.prompt, tokens)}`);
  }
}

/** What a plan says, for the model it was made for. Throws OF_PLAN for another one. */
async function planned(path: string, model: string): Promise<FuseOptions> {
  const plan = readPlanFile(path);
  const { sha256 } = await fileFact(model, 0, true);
  if (sha256 !== plan.model.sha256) {
    const why = `it was made for another model: '${plan.model.file}' has sha256 ${plan.model.sha256.slice(0, 12)}..., ${model} ${sha256?.slice(0, 12)}...`;
    throw apiErrors.plan(path, why, 'make a plan for this one');
  }
  return fuseOptionsOf(plan.chosen, plan.options.norm);
}

function requestOf(flags: FlagValues): Omit<FuseRequest, 'input' | 'output'> {
  const size = flags['max-shard-size'];
  return {
    removeAttention: flags['remove-attention'],
    removeFfn: flags['remove-ffn'],
    kvNaming: flags['kv-naming'],
    runs: flags.runs,
    keepLast: flags['keep-last'],
    maxWidth: flags['max-width'],
    lead: flags.lead,
    norm: flags.norm,
    parallelOnly: flags['parallel-only'],
    parallelizeBlocks: flags['parallelize-blocks'],
    blockForm: flags['block-form'],
    kvCaches: flags['kv-caches'],
    requantize: flags.requantize,
    pipeline: flags.pipeline,
    verify: flags.verify ?? true,
    force: flags.force ?? false,
    dryRun: flags['dry-run'] ?? false,
    requireFusion: flags['require-fusion'] ?? false,
    external: flags.external,
    maxShardBytes: size === undefined ? undefined : parseByteSize(size, '--max-shard-size'),
    hash: flags.report !== undefined,
    talk: flags.quiet ? silent : stderrTalk(),
  };
}
