/** `onnx-fuse in.onnx out.onnx` */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { apiErrors } from '../../api/basics/errors.js';
import { silent, stderrTalk } from '../../api/basics/progress.js';
import { writeJson } from '../../api/basics/small-file.js';
import { checkTarget } from '../../api/basics/targets.js';
import { fuseBeside } from '../../api/folder/beside.js';
import { fuseFolder, writeBlockConfigs } from '../../api/folder/folder.js';
import { isFolder } from '../../api/folder/inside.js';
import { modelFile } from '../../api/folder/model-folder.js';
import { modelFact } from '../../api/fuse/evidence.js';
import type { FileFact } from '../../api/fuse/file-fact.js';
import { fuse } from '../../api/fuse/fuse.js';
import type { Report } from '../../api/fuse/report.js';
import type { FuseRequest } from '../../api/fuse/request.js';
import { deviceOf, plannedDevice } from '../../api/plan/device.js';
import { plannedOptions, readPlanFile } from '../../api/plan/plan-file.js';
import { recover } from '../../api/plan/recover.js';
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
import { continueText } from '../../api/verify/story.js';
import { errors, removeTemporary, temporaryFor } from '../../ir/index.js';
import { type FuseOptions, registry } from '../../passes/index.js';
import type { fuseSpec } from '../options/fuse.js';
import type { ArgumentsOf } from '../options/spec.js';
import { renderReport } from '../text/render.js';
import { give, say } from './command.js';

export async function fuseCommand(args: ArgumentsOf<typeof fuseSpec>): Promise<number> {
  const { input, output } = args;
  if (!input || !output) throw errors.usage('', 'an input and an output are needed', 'see onnx-fuse --help');
  const { flags, plugins } = await settings(args);
  const reads = [input, args.config, flags.plan, flags.device, ...plugins];
  for (const target of targetsOf(flags)) checkTarget(target, reads, [output]);
  return fuseFiles(input, output, flags, plugins, args.json);
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

const pathsOf = (files: readonly FileFact[]): string[] => files.map(({ path }) => path);

/** What is written besides the model. */
function targetsOf(flags: FlagValues): readonly (string | undefined)[] {
  return [flags.report, flags['block-configs']];
}

async function fuseFiles(
  input: string,
  output: string,
  flags: FlagValues,
  plugins: readonly string[],
  json: string | undefined,
): Promise<number> {
  const known = await loadPlugins(plugins);
  const passes = [...known.values()].filter((pass) => !registry.has(pass.id));
  const isDirectory = isFolder(input);
  const talk = flags.quiet ? silent : stderrTalk();
  const asked = { ...requestOf(flags), talk };
  const plan = flags.plan === undefined ? {} : await planned(flags.plan, modelFile(input));
  const device = flags.device === undefined ? {} : { device: deviceOf(flags.device) };
  const request = { ...asked, ...plan, ...device, input, output, passes };
  const report = await recovering(
    request,
    flags,
    isDirectory ? (flags['share-weights'] ? fuseBeside : fuseFolder) : fuse,
  );
  for (const target of targetsOf(flags)) checkTarget(target, pathsOf(report.input), pathsOf(report.output));
  if (flags['block-configs'] !== undefined && !flags['dry-run'])
    await writeBlockConfigs(flags['block-configs'], report, input);
  if (flags.report !== undefined) await writeJson(flags.report, report);
  const { prompt, tokens = 120 } = flags;
  const speak = async (path: string): Promise<string> =>
    prompt + (await continueText(modelFile(path), prompt ?? '', tokens));
  const spoken =
    prompt === undefined || flags['dry-run'] ? null : { before: await speak(input), after: await speak(output) };
  if (flags.quiet && json === undefined) {
    if (spoken) say(renderSpoken(spoken));
    return 0;
  }
  const render = (shown: Report): string => [renderReport(shown), ...(spoken ? [renderSpoken(spoken)] : [])].join('\n');
  return give({ kind: 'run', result: spoken ? { ...report, spoken } : report, render }, json);
}

function renderSpoken({ before, after }: { readonly before: string; readonly after: string }): string {
  return `\nbefore: ${before}\n\nafter:  ${after}`;
}

/** Runs with maps that are fitted for it, where those are asked for; their file is gone afterwards. */
async function recovering(
  request: FuseRequest,
  flags: FlagValues,
  run: (request: FuseRequest) => Promise<Report>,
): Promise<Report> {
  const { recover: isAsked, data = [], tokenizer, length } = flags;
  if (!isAsked) {
    const useless = RECOVERY_FLAGS.find((name) => flags[name] !== undefined);
    if (useless)
      throw errors.usage(`--${useless}`, 'it has no effect without --recover', 'add --recover, or leave it out');
    return run(request);
  }
  const folder = temporaryFor(request.output);
  mkdirSync(folder);
  try {
    const { options, recovery } = await recover({
      model: modelFile(request.input),
      fuse: request,
      data,
      own: { talk: request.talk ?? silent },
      heldOut: flags['held-out'],
      tokenizer,
      length,
      maxTokens: flags['max-tokens'],
      session: {},
      quantizeMaps: mapBitsOf(flags['quantize-maps']),
      fitFile: join(folder, 'maps.onnx-fuse-fit'),
      talk: request.talk ?? silent,
    });
    return await run({ ...request, ...options, recovery });
  } finally {
    await removeTemporary(folder);
  }
}

/** What is only of use to fit maps. */
const RECOVERY_FLAGS = ['quantize-maps', 'data', 'held-out', 'tokenizer', 'length', 'max-tokens'] as const;

/** What a plan says, for the model it was made for. Throws OF_PLAN for another one. */
async function planned(path: string, model: string): Promise<FuseOptions & Pick<FuseRequest, 'device'>> {
  const plan = readPlanFile(path);
  const { sha256 } = await modelFact(model);
  if (sha256 !== plan.model.sha256) {
    const why = `it was made for another model: '${plan.model.file}' has sha256 ${plan.model.sha256.slice(0, 12)}..., ${model} ${sha256.slice(0, 12)}...`;
    throw apiErrors.plan(path, why, 'make a plan for this one');
  }
  return { ...(await plannedOptions(path, plan)), device: plannedDevice(plan) };
}
