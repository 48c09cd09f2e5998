/** Holds one golden file against the passes and against onnxruntime. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setFloat16 } from '@petamoriken/float16';
import { createTwoFilesPatch } from 'diff';
import * as assert from 'uvu/assert';
import { namesOf } from '../../api/fuse/check.js';
import type { ReadableSource } from '../../ir/bytes.js';
import type { Model } from '../../ir/core.js';
import { Diagnostic } from '../../ir/diagnostic.js';
import { referenceBytes } from '../../ir/disk/model.js';
import { parseModel } from '../../ir/text/parse.js';
import { printModel } from '../../ir/text/print.js';
import { verifyModel } from '../../ir/verify.js';
import { allGraphs } from '../../ir/walk.js';
import {
  factsOf,
  type PipelineResult,
  parsePipeline,
  printPipeline,
  referenceSteps,
  registry,
  runPipeline,
  type ShardFacts,
  type Step,
  shardTensorParallel,
} from '../../passes/index.js';
import {
  type Candidate,
  type Comparison,
  chainOf,
  floatTwin,
  type OptimizationLevel,
  openGroup,
  readSignature,
  runSteps,
  type StepResult,
  stepTokens,
  type TensorMap,
  usesBfloat16,
  type VerifyOptions,
  verifyPair,
  withSession,
} from '../../runtime/index.js';
import { hashOf, mix, normal } from '../../runtime/run/random.js';
import { fitPath } from './fit-file.js';
import { ACCEPT_COMMAND, GOLDEN_ROOT, type Golden, NO_REMARKS, parseGolden, UNCHANGED, writeGolden } from './golden.js';

/** Tokens of the prefills: short, because the models are tiny. A decode step follows each. */
const TOKENS = [3, 5] as const;
/** What counts as another function: rounding stays far below. */
const DIFFERENT = 1e-3;

/**
 * Runs the pipeline of a golden file, twice, compares text, and runs both models. With `accept` the file gets the remarks
 * and the output that were found; everything else must hold all the same.
 */
export async function checkGolden(golden: Golden, accept: boolean): Promise<void> {
  const original = goldenModel(golden.input);
  assert.equal(verifyModel(original), [], 'the input is not a valid graph');
  const input = printModel(original);
  if (!accept) same(golden, 'input', golden.input, input);

  const written = parsePipeline(golden.pipeline, registry);
  assert.is(printPipeline(written), golden.pipeline, 'the pipeline is not written in its canonical form');
  const steps = stepsOf(golden.pipeline);
  const model = goldenModel(golden.input);
  let result: PipelineResult | null = null;
  let output: string;
  try {
    result = runPipeline(model, steps);
    output = result.changed ? printModel(model) : UNCHANGED;
  } catch (error) {
    if (!(error instanceof Diagnostic) || golden.outcome !== 'error') throw error;
    // A file of maps lies in a folder of its own every time.
    output = `${error.message.replace(/\S*[/\\](?=maps-)/, '')}\n`;
    assert.is(printModel(model), input, 'a pipeline that refuses must leave the graph as it was');
  }
  assert.is(result === null, golden.outcome === 'error', 'the pipeline was expected to refuse, and ran');
  const remarks = result ? remarkLines(result) : NO_REMARKS;
  if (accept) writeFileSync(golden.file, writeGolden(golden, input, remarks, golden.outcome, output));
  else {
    same(golden, 'remarks', golden.remarks, remarks);
    same(golden, golden.outcome, golden.output, output);
  }

  const changed = result?.changed ? model : null;
  if (changed) {
    assert.equal(verifyModel(changed), [], 'the output is not a valid graph');
    assert.ok(output !== input, 'the graph was touched, and nothing came of it');
    same(golden, 'output parsed and printed', output, printModel(goldenModel(output)));
    checkCounts(golden, original, changed);
    if (golden.repeat) checkRepeat(golden, output);
  }
  const done = result ?? { facts: {} };
  const names: Names = namesOf(done);
  await checkTwin(golden, original);
  const [facts] = changed ? factsOf(done, shardTensorParallel) : [];
  if (facts) await executeGroup(golden, original, facts);
  else await execute(golden, original, changed, names);
}

/** One rank's model does not run alone: all ranks of the same pipeline run together. */
async function executeGroup(golden: Golden, original: Model, facts: ShardFacts): Promise<void> {
  const { tolerance } = golden;
  assert.is(tolerance.kind, 'close', 'ranks are equal to their original up to rounding');
  const { ranks, caches } = facts;
  const borders = /collectives=none/.test(golden.pipeline) ? facts.collectives : [];
  const chains = Array.from({ length: ranks }, (_, rank) => {
    const text = golden.pipeline.replace(/(shard-tensor-parallel)(\{([^}]*)\})?/, (_, id, _all, words = '') => {
      const others = words.split(' ').filter((word: string) => word !== '' && !word.startsWith('rank='));
      return `${id}{${[...others, `rank=${rank}`].join(' ')}}`;
    });
    const open = (): Model => {
      const model = goldenModel(golden.input);
      runPipeline(model, stepsOf(text));
      return golden.twin ? floatTwin(model) : model;
    };
    return chainOf(open, borders, `rank ${rank}`);
  });
  const open: Candidate['open'] = (options) => openGroup(chains, { caches }, options);
  const before = located(original);
  const { perOutput, onlyReference, onlyCandidate, nonFinite } = await verifyPair(
    before,
    { ...before, open },
    { tokens: TOKENS },
  );
  const limit = tolerance.kind === 'close' ? tolerance.relative : 0;
  for (const { name, relative } of perOutput) {
    assert.ok(relative <= limit, `output '${name}' of the ranks differs by ${relative}, expected ${limit} at most`);
  }
  assert.equal([onlyReference, onlyCandidate, nonFinite], [[], [], [0, 0]], 'outputs came or went, or are no numbers');
}

/** The steps of a pipeline; files of fitted maps are made for it, `map=maps-4`. */
function stepsOf(pipeline: string): Step[] {
  return parsePipeline(pipeline, registry).map((step) => {
    const { map } = step.options;
    return typeof map === 'string' ? { ...step, options: { ...step.options, map: fitPath(map) } } : step;
  });
}

/** One line each: `missed concat-ffn 3: why`. */
function remarkLines({ remarks }: PipelineResult): string {
  const lines = remarks.map(
    ({ kind, pass, layer, message }) => `${kind} ${pass}${layer === null ? '' : ` ${layer}`}: ${message}\n`,
  );
  return lines.join('') || NO_REMARKS;
}

/** The model that a golden file's text describes. */
export function goldenModel(text: string): Model {
  return parseModel(text, { resolve: (location) => new RandomSource(location) });
}

function same(golden: Golden, section: string, expected: string, found: string): void {
  if (expected === found) return;
  const patch = createTwoFilesPatch(`expected ${section}`, `found ${section}`, expected, found, '', '', { context: 2 });
  const message = `${golden.name}: ${section} differs; if this is right: ${ACCEPT_COMMAND}`;
  // uvu prints the details below the message.
  throw Object.assign(new Error(message), { details: patch });
}

function checkCounts(golden: Golden, before: Model, after: Model): void {
  const nodesOf = (model: Model) => [...allGraphs(model)].flatMap((graph) => [...graph.nodes()]);
  const countOf = (model: Model, op: string) => nodesOf(model).filter((node) => node.opType === op).length;
  const found = golden.counts.map(({ op }) => `${op} ${countOf(before, op)} -> ${countOf(after, op)}`);
  const expected = golden.counts.map(({ op, before, after }) => `${op} ${before} -> ${after}`);
  assert.is(found.join(', '), expected.join(', '), 'the counts line says something else');
}

/** What is written and read back is left alone by the pipeline that made it. */
function checkRepeat(golden: Golden, output: string): void {
  const again = goldenModel(output);
  // What has gone already cannot go again: to ask for it twice is an error, unless a list may hold such layers.
  const steps = stepsOf(golden.pipeline).map((step) =>
    'absent' in step.pass.options ? { ...step, options: { ...step.options, absent: 'skip' } } : step,
  );
  const { changed } = runPipeline(again, steps);
  same(golden, 'output of a second run', output, printModel(again));
  assert.not(changed, 'the second run touched the graph');
}

/** Only what cannot run may run as something else, and what could not once may be able to by now. */
async function checkTwin(golden: Golden, original: Model): Promise<void> {
  assert.is(
    golden.twin,
    usesBfloat16(original),
    "a model of bfloat16, and no other, has a line 'runs: as its fp32 twin'",
  );
  if (!golden.twin) return;
  const location = { bytes: referenceBytes(original, '.'), folder: '.' };
  const refusal = await withSession(location, { optimization: 'disabled' }, async () => 'none').catch(
    (error: Error) => error.message,
  );
  assert.is.not(refusal, 'none', 'onnxruntime runs this model as it is: its twin is not needed');
  assert.match(refusal, /has no kernel|bfloat16/, 'onnxruntime refuses this model for another reason');
}

/** What outputs were called, and which of them are one now. */
type Names = Required<Pick<VerifyOptions, 'renamed' | 'merged'>>;

/** Both sides run; what they give is as far apart as the file says. A case without change runs its input only. */
async function execute(golden: Golden, original: Model, changed: Model | null, names: Names): Promise<void> {
  const { tolerance } = golden;
  if (!changed || tolerance.kind === 'exact') {
    await compareExactly(original, changed ?? original);
  } else if (tolerance.kind === 'close') {
    await compareClosely(original, changed, tolerance.relative, names);
  } else {
    const { worst } = await compare(original, changed, names);
    assert.ok(worst.relative > DIFFERENT, `the function is the same: relative difference ${worst.relative}`);
    if (tolerance.relative === null) return;
    const reference = goldenModel(golden.input);
    runPipeline(reference, referenceSteps(stepsOf(golden.pipeline)));
    await compareClosely(reference, changed, tolerance.relative, names);
  }
}

async function compareClosely(before: Model, after: Model, tolerance: number, names: Names): Promise<void> {
  const { perOutput, onlyReference, onlyCandidate } = await compare(before, after, names);
  for (const { name, relative } of perOutput) {
    assert.ok(relative <= tolerance, `output '${name}' differs by ${relative}, expected ${tolerance} at most`);
  }
  assert.equal([onlyReference, onlyCandidate], [[], []], 'outputs came or went');
}

async function compare(before: Model, after: Model, names: Names): Promise<Comparison> {
  const comparison = await verifyPair(located(before), located(after), { tokens: TOKENS, ...names });
  const { nonFinite, skipped, assumed } = comparison;
  assert.equal({ nonFinite, skipped, assumed }, { nonFinite: [0, 0], skipped: [], assumed: [] });
  return comparison;
}

/** The model as bytes to run: that of its twin where it needs one, which it is from then on. */
function located(model: Model): Candidate {
  if (usesBfloat16(model)) floatTwin(model);
  return { model, location: { bytes: referenceBytes(model, '.'), folder: '.' } };
}

/** Bit for bit, every output of every step, but for what `instrument` adds. One model given twice runs once: it must run, and give numbers. */
async function compareExactly(before: Model, after: Model): Promise<void> {
  let left = await outputsOf(before, 'disabled');
  if (before === after) return;
  const right = await outputsOf(after, left.level);
  if (right.level !== left.level) left = await outputsOf(before, right.level);
  assert.is(left.steps.length, right.steps.length);
  for (const [i, { outputs }] of left.steps.entries()) {
    const found = [...(right.steps[i]?.outputs ?? [])].filter(([name]) => !name.startsWith('onnx_fuse.'));
    assert.equal(bitsOf(new Map(found)), bitsOf(outputs), 'outputs are not equal bit for bit');
  }
}

async function outputsOf(
  model: Model,
  optimization: OptimizationLevel,
): Promise<{ steps: readonly StepResult[]; level: OptimizationLevel }> {
  const { location } = located(model);
  const signature = readSignature(model);
  return withSession(location, { optimization }, async (session) => {
    const { steps, assumed } = await runSteps(session, signature, {
      tokenIds: stepTokens(signature, 2, TOKENS[1], 1),
    });
    assert.equal(assumed, [], 'inputs of unknown purpose');
    for (const { logits } of steps) assert.ok(logits?.every(Number.isFinite), 'logits are not finite');
    return { steps, level: session.optimizationLevel };
  });
}

/** Shape and bits of every output, in order: names are part of the text, and a pass may change them. */
function bitsOf(outputs: TensorMap): string[] {
  return [...outputs.values()].map(
    ({ dims, data }) => `[${dims}] ${Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('hex')}`,
  );
}

/** `random.f32`, `.f16`, `.bf16` and `.u8`: endless files of seeded values, so that matrices need not be written out. */
class RandomSource implements ReadableSource {
  readonly size = 2 ** 20;
  readonly #width: number;
  readonly #seed: number;

  constructor(readonly id: string) {
    const width = WIDTHS[id];
    if (!width) throw new Error(`weights lie in ${Object.keys(WIDTHS).join(', ')}, not in ${id}`);
    this.#width = width;
    this.#seed = hashOf(id);
  }

  readInto(target: Uint8Array, at: number, length: number, offset: number): void {
    const view = new DataView(new ArrayBuffer(4));
    for (let i = 0; i < length; i++) {
      const index = Math.floor((offset + i) / this.#width);
      if (this.#width === 4) view.setFloat32(0, 0.5 * normal(this.#seed, index), true);
      // The upper half of a float is a bfloat16.
      else if (this.id === 'random.bf16') view.setUint16(0, bitsOf32(0.5 * normal(this.#seed, index)) >>> 16, true);
      else if (this.#width === 2) setFloat16(view, 0, 0.5 * normal(this.#seed, index), true);
      else view.setUint8(0, mix(this.#seed, index) % 256);
      target[at + i] = view.getUint8((offset + i) % this.#width);
    }
  }
}

const WIDTHS: Readonly<Record<string, number>> = { 'random.f32': 4, 'random.f16': 2, 'random.bf16': 2, 'random.u8': 1 };

function bitsOf32(value: number): number {
  return new Uint32Array(new Float32Array([value]).buffer)[0] as number;
}

/** The model that a golden file of the repository begins with, say `pipeline/adds`; `edit` may change its text. */
export function goldenInput(name: string, edit: (text: string) => string = (text) => text): Model {
  const file = join(GOLDEN_ROOT, `${name}.golden`);
  return goldenModel(edit(parseGolden(readFileSync(file, 'utf8'), file).input));
}
