/** `fuse` and `recover`: a model, or a folder with one, changed and written elsewhere. */
import { existsSync, mkdirSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import { errors, reasonOf, removeTemporary, temporaryFor } from '../../ir/index.js';
import { type FuseOptions, selectedLayers } from '../../passes/index.js';
import type { MapBits } from '../../runtime/index.js';
import { apiErrors } from '../basics/errors.js';
import { checkOptions } from '../basics/options.js';
import { silent } from '../basics/progress.js';
import { writeJson } from '../basics/small-file.js';
import { checkTarget } from '../basics/targets.js';
import { fuseBeside } from '../folder/beside.js';
import { fuseFolder, writeBlockConfigs } from '../folder/folder.js';
import { isFolder } from '../folder/inside.js';
import { CONFIG, GENAI, modelFile } from '../folder/model-folder.js';
import { modelFact } from '../fuse/evidence.js';
import type { FileFact } from '../fuse/file-fact.js';
import { fuseFile } from '../fuse/fuse.js';
import type { Report } from '../fuse/report.js';
import type { FuseRequest } from '../fuse/request.js';
import { deviceOf, plannedDevice } from '../plan/device.js';
import { checkedForm } from '../plan/map-form.js';
import { plannedOptions, readPlanFile } from '../plan/plan-file.js';
import { conflictIn, type FlagValues } from '../settings/flag-values.js';

/** What becomes of a model, or of a folder with one, and what is written besides. */
export interface FusionRequest extends Omit<FuseRequest, 'linearize' | 'recovery' | 'dataNames' | 'device' | 'asked'> {
  /** A plan.json to follow, in the place of the options that say what is removed and fused; none by default. */
  readonly plan?: string | undefined;
  /**
   * The device that the time of a token is predicted for, before and after: a name as h100x8, or a JSON file. That of the
   * plan by default; without a plan nothing is predicted.
   */
  readonly device?: string | undefined;
  /** A file that the report is also written to, as JSON, with hashes of input and output; none by default. */
  readonly report?: string | undefined;
  /** A file that the new architecture is written to, as block_configs; none by default (a folder gets it anyway). */
  readonly blockConfigs?: string | undefined;
  /** A text that the model continues before and after, for `spoken`; none by default. */
  readonly prompt?: string | undefined;
  /** Tokens by which `prompt` is continued; 120 by default. */
  readonly tokens?: number | undefined;
}

/** The report of a run, with what both models say where there was a prompt. */
export interface Fusion extends Report {
  /** The prompt as it is continued by the original, and by the result. */
  readonly spoken?: { readonly before: string; readonly after: string };
}

/** A run with maps that are fitted for it on text. */
export interface RecoveryRequest extends Omit<FusionRequest, 'plan' | 'pipeline'> {
  /** Text or token ids (.jsonl, .npy) that maps are fitted on and judged by; the model writes its own by default. */
  readonly data?: readonly string[] | undefined;
  /** Text that maps are judged on; the last fifth of `data` by default. */
  readonly heldOut?: string | undefined;
  /** A tokenizer.json to read text with; the one beside the model by default. */
  readonly tokenizer?: string | undefined;
  /** Tokens of a sequence that the text is cut into; 256 by default. */
  readonly length?: number | undefined;
  /** Tokens that are used of each text at most; 65536 by default. */
  readonly maxTokens?: number | undefined;
  /** Bits of the blocks that maps are stored in; null, the default, is the type of the activations. */
  readonly quantizeMaps?: MapBits | null | undefined;
  /** Rank of maps, which are two matrices then, less than half the width of the stream; null, the default, is one matrix. */
  readonly mapRank?: number | null | undefined;
}

const TOKENS = 120;

/**
 * Fuses a model into another: what `onnx-fuse in out` does. `input` may be a folder; then so is `output`, or with
 * `shareWeights` a file beside the model. Nothing appears unless everything succeeded.
 *
 * @throws Diagnostic OF_CHECK_FAILED, OF_NOTHING_FUSED, OF_OUTPUT_IS_INPUT, OF_PLAN and those of reading, of passes and of
 * the runtime
 */
export async function fuse(request: FusionRequest): Promise<Fusion> {
  checkOptions('FusionRequest', request);
  checkForm(request);
  return run(request, {});
}

/**
 * Removes attentions and FFNs and puts linear maps in their places, which are fitted front to back on text and judged on text
 * that nothing was fitted on: what `onnx-fuse in out --remove-attention 4-9 --recover` does. `recovery` of the report says
 * what the maps are worth.
 *
 * @throws Diagnostic OF_CANNOT_RECOVER, OF_TOKEN_DATA, OF_NO_RUNTIME, and what `fuse` throws
 */
export async function recover(request: RecoveryRequest): Promise<Fusion> {
  checkOptions('RecoveryRequest', request);
  checkForm(request);
  checkOutputs(request);
  const { data = [], heldOut, tokenizer, length, maxTokens, quantizeMaps = null, mapRank = null, ...rest } = request;
  const form = checkedForm({ quantizeMaps, mapRank });
  const talk = request.talk ?? silent;
  const model = modelFile(request.input);
  const folder = temporaryFor(request.output);
  makeFolder(folder, request.output);
  try {
    const fitFile = join(folder, 'maps.onnx-fuse-fit');
    const text = { data, heldOut, tokenizer, length, maxTokens, own: { talk } };
    const { fitMaps } = await import('../plan/fit-maps.js');
    const fitted = await fitMaps({ model, fuse: request, ...text, session: {}, form, fitFile, talk });
    const { input: _input, output: _output, talk: _talk, hash: _hash, passes: _passes, ...asked } = request;
    return await run(rest, { ...fitted.options, recovery: fitted.recovery, asked });
  } finally {
    await removeTemporary(folder);
  }
}

/** A run, with what else is known of it. */
async function run(
  request: FusionRequest,
  known: FuseOptions & Pick<FuseRequest, 'recovery' | 'asked'>,
): Promise<Fusion> {
  checkOutputs(request);
  const { plan, device: deviceName, report: reportFile, blockConfigs, prompt, tokens = TOKENS, ...rest } = request;
  const { input, output, dryRun } = request;
  checkConflicts(request);
  for (const key of ['removeAttention', 'removeFfn'] as const) {
    const wrong = selectedLayers(request[key] ?? []).find((layer) => !Number.isSafeInteger(layer) || layer < 0);
    if (wrong !== undefined) throw errors.usage(key, `expected numbers of layers, found ${wrong}`, 'count from 0');
  }
  const planned = plan === undefined ? {} : await optionsOf(plan, request);
  const device = deviceName === undefined ? {} : { device: deviceOf(deviceName) };
  const hash = request.hash ?? reportFile !== undefined;
  const report = await write({ ...rest, hash, ...planned, ...device, ...known });
  // The data of both are known now, and no report takes the place of any.
  const written = [reportFile, blockConfigs];
  for (const target of written) checkTarget(target, pathsOf(report.input), pathsOf(report.output));
  if (blockConfigs !== undefined && !dryRun) await writeBlockConfigs(blockConfigs, report, input);
  if (reportFile !== undefined) await writeJson(reportFile, report);
  if (prompt === undefined || dryRun) return report;
  const { continueText } = await import('../verify/story.js');
  const speak = async (path: string): Promise<string> => prompt + (await continueText(modelFile(path), prompt, tokens));
  return { ...report, spoken: { before: await speak(input), after: await speak(output) } };
}

function write(request: FuseRequest): Promise<Report> {
  if (!isFolder(request.input)) return fuseFile(request);
  return request.shareWeights ? fuseBeside(request) : fuseFolder(request);
}

/** A file becomes a file, a folder a folder: an output that looks like the other is refused. @throws Diagnostic OF_USAGE. */
function checkForm({
  input,
  output,
  shareWeights,
  talk,
}: Pick<FuseRequest, 'input' | 'output' | 'shareWeights' | 'talk'>): void {
  if (isFolder(input)) {
    if (shareWeights || !/\.onnx$/i.test(output) || isFolder(output)) return;
    const why = 'the input is a folder, so the output is one, and this is the name of a file';
    throw errors.usage(output, why, `give a folder, or ${modelFile(input)} as the input`);
  }
  const why = 'the input is a file, so the output is one';
  if (/[/\\]$/.test(output))
    throw errors.usage(output, `${why}, and this is the name of a folder`, 'name the file, too');
  const beside = [GENAI, CONFIG].find((name) => existsSync(join(dirname(input), name)));
  if (beside === undefined || extname(output) !== '') return;
  talk?.note(
    `${why}: ${output}; a folder that is ready to be loaded, with ${beside}, comes from the folder as the input`,
  );
}

const pathsOf = (files: readonly FileFact[]): string[] => files.map(({ path }) => path);

/** Where small outputs go is checked before the work. @throws Diagnostic OF_OUTPUT_IS_INPUT, OF_USAGE. */
function checkOutputs({ input, output, plan, device, report, blockConfigs }: FusionRequest): void {
  for (const target of [report, blockConfigs]) checkTarget(target, [input, plan, device], [output]);
}

/** @throws Diagnostic OF_WRITE. */
function makeFolder(folder: string, output: string): void {
  try {
    mkdirSync(folder);
  } catch (error) {
    throw errors.writeFailed(output, reasonOf(error));
  }
}

/** Options that mean nothing beside a plan or a pipeline, by the table of flags. @throws Diagnostic OF_USAGE. */
function checkConflicts(request: FusionRequest): void {
  const keys = new Map(
    Object.keys(request).map((key) => [key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`), key]),
  );
  const given = Object.fromEntries([...keys].map(([flag, key]) => [flag, request[key as keyof FusionRequest]]));
  const conflict = conflictIn(given as FlagValues);
  if (conflict)
    throw errors.usage(keys.get(conflict.flag) ?? '', `it has no effect beside a ${conflict.beside}`, conflict.remedy);
}

/** What a plan says, for the model it was made for. @throws Diagnostic OF_PLAN for another one, OF_USAGE. */
async function optionsOf(path: string, request: FusionRequest): Promise<FuseOptions & Pick<FuseRequest, 'device'>> {
  const plan = readPlanFile(path);
  const model = modelFile(request.input);
  const { sha256 } = await modelFact(model);
  if (sha256 !== plan.model.sha256) {
    const why = `it was made for another model: '${plan.model.file}' has sha256 ${plan.model.sha256.slice(0, 12)}..., ${model} ${sha256.slice(0, 12)}...`;
    throw apiErrors.plan(path, why, 'make a plan for this one');
  }
  return { ...(await plannedOptions(path, plan)), device: plannedDevice(plan) };
}
