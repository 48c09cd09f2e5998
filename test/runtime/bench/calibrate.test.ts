/** Calibration: the constants follow from times, and times are taken of models that are really there. */
import * as assert from 'uvu/assert';
import { type Model, openModel } from '../../../ir/index.js';
import { fuseSteps, runPipeline } from '../../../passes/index.js';
import { calibrate } from '../../../runtime/bench/calibrate.js';
import { nodeTimer, type StepTimer } from '../../../runtime/bench/step-times.js';
import { costsFor, parseDevice, predictSecondsPerToken, workOf } from '../../../runtime/choose/cost.js';
import { TALES12 } from '../../helpers/paths.js';
import { writeSmallDecoder } from '../../helpers/small-decoder.js';
import { suite } from '../../helpers/suite.js';
import { located, tinyDecoder } from '../../helpers/tiny-decoder.js';
import { inWorkspace } from '../../helpers/workspace.js';

const test = suite('runtime: calibration');

/** Seconds of a token on a machine whose constants are known; weights cost next to nothing beside them. */
const KNOWN = { attention: 10e-3, ffn: 4e-3, linear: 2e-3, besides: 20e-3 };
function secondsOf(model: Model): number {
  const { attentions, ffns, linears } = workOf(model);
  return KNOWN.besides + attentions * KNOWN.attention + ffns * KNOWN.ffn + linears * KNOWN.linear;
}

/** A timer that takes no time: every model has its known seconds, times what the machine is slowed down by. */
function knownTimer(slow: (round: number) => number, seen: number[] = []): StepTimer {
  return {
    runtime: 'a known machine',
    time: async (models, { rounds, context }) => {
      seen.push(context);
      return models.map(({ model }) => ({
        token: Array.from({ length: rounds }, (_, round) => slow(round) * secondsOf(model)),
        prompt: [],
      }));
    },
  };
}

const near = (found: number, expected: number, share: number) =>
  assert.ok(Math.abs(found - expected) <= share * expected, `${found} is not ${expected}`);

test('the constants of a known machine are found, and predict every model of it', async () => {
  const seen: number[] = [];
  const device = await calibrate(TALES12, { context: 77, timer: knownTimer(() => 1, seen) });
  // Pairs: without attentions, with maps in their places, without FFNs, FFNs apart and fused. Some 4 MB of weights are read at gigabytes a second.
  assert.equal(seen, [77, 77, 77, 128]);
  near(device.secondsPerAttention, KNOWN.attention, 0.02);
  near(device.secondsPerFfn, KNOWN.ffn, 0.1);
  near(device.secondsPerLinear, KNOWN.linear, 0.1);
  assert.match(
    device.source,
    /a known machine: one token of one sequence behind 77, .*without 4 attentions, 4 of them replaced by linear maps, without 4 FFNs/,
  );
  assert.not.match(device.disturbed ?? '', /a token took|noise/);
  const model = openModel(TALES12);
  near(predictSecondsPerToken(workOf(model), device), secondsOf(model), 1e-9);
  runPipeline(model, fuseSteps({ removeAttention: [3, 4, 5, 6, 7], removeFfn: [9], fuse: false }));
  near(predictSecondsPerToken(workOf(model), device), secondsOf(model), 0.01);
});

test('what a prompt costs is measured where it is asked for, and predicts every model', async () => {
  const seen: [number, boolean][] = [];
  const timer: StepTimer = {
    runtime: 'a known machine',
    time: async (models, { rounds, context, prompt }) => {
      seen.push([context, prompt]);
      const of = (scale: number) => models.map(({ model }) => new Array<number>(rounds).fill(scale * secondsOf(model)));
      const [tokens, prompts] = [of(1), of(50)];
      return models.map((_, i) => ({ token: tokens[i] ?? [], prompt: prompts[i] ?? [] }));
    },
  };
  const device = await calibrate(TALES12, { context: 77, timer, prompts: true });
  assert.equal(
    seen,
    [77, 77, 77, 128, 128, 128, 128].map((context) => [context, context === 128]),
  );
  near(device.secondsPerAttention, KNOWN.attention, 0.02);
  near(device.prompt?.secondsPerAttention ?? 0, 50 * KNOWN.attention, 0.02);
  const model = openModel(TALES12);
  near(predictSecondsPerToken(workOf(model), costsFor('prompt', device)), 50 * secondsOf(model), 1e-9);
  assert.equal(parseDevice(JSON.stringify(device), 'here'), device);
});

test('what a fused FFN saves is measured for a token and for a prompt, and noise is nothing', async () => {
  // A wide FFN of this machine is slow on prompts.
  const timer = (prompt: (model: Model) => number, slow: (round: number) => number): StepTimer => ({
    runtime: 'a known machine',
    time: async (models, { rounds }) =>
      models.map(({ model }, at) => {
        const samples = (seconds: number) => Array.from({ length: rounds }, (_, round) => slow(round + at) * seconds);
        return { token: samples(secondsOf(model)), prompt: samples(prompt(model)) };
      }),
  });
  const wide = (model: Model): number => 1 + (workOf(model).ffns < 12 && workOf(model).attentions === 8 ? 0.3 : 0);
  const { fusion } = await calibrate(TALES12, { timer: timer(wide, () => 1) });
  near(fusion?.token ?? 0, KNOWN.ffn, 1e-6);
  // Four FFNs became one: 0.3 s for the three that are no more.
  near(-(fusion?.prompt ?? 0), 0.1, 1e-6);
  const noisy = await calibrate(TALES12, {
    timer: timer(
      () => 1,
      (round) => (round % 2 === 0 ? 1 : 2),
    ),
  });
  assert.equal(noisy.fusion, { token: 0, prompt: 0 });
});

test('parts that took longer than the whole on a busy machine save no more than there is', async () => {
  // Every pair is timed anew: what is left out always saves half of the token.
  const timer: StepTimer = {
    runtime: 'a busy machine',
    time: async (models, { rounds }) =>
      models.map((_, at) => ({ token: Array.from({ length: rounds }, () => (at === 0 ? 1 : 0.5)), prompt: [] })),
  };
  const device = await calibrate(TALES12, { timer });
  const { attentions, ffns } = workOf(openModel(TALES12));
  const parts = attentions * device.secondsPerAttention + ffns * device.secondsPerFfn;
  assert.ok(parts > 0.9 && parts <= 1, `${parts} of 1`);
  assert.ok(device.secondsPerToken > -0.01, `${device.secondsPerToken}`);
});

test('a machine that is busy is told from one that is quiet, and one that gets slower changes nothing', async () => {
  const busy = await calibrate(TALES12, { timer: knownTimer((round) => (round % 2 === 0 ? 1 : 1.5)) });
  assert.match(busy.disturbed ?? '', /^the machine was not quiet while it was measured: .*a token took between/);
  const slower = await calibrate(TALES12, { timer: knownTimer((round) => 1 + 0.02 * round) });
  assert.not.match(slower.disturbed ?? '', /a token took/);
  near(slower.secondsPerAttention, 1.06 * KNOWN.attention, 0.02);
});

test('one token is timed in processes of their own, with and without caches', () =>
  inWorkspace(async (folder) => {
    const path = writeSmallDecoder(folder);
    const device = await calibrate(path, { context: 40, batch: 2, rounds: 2 });
    for (const key of ['secondsPerAttention', 'secondsPerFfn', 'secondsPerLinear'] as const) {
      assert.ok(device[key] >= 0 && device[key] < 1, `${key}: ${device[key]}`);
    }
    assert.match(
      device.source,
      /onnxruntime-node \S+ on cpu: one token of 2 sequences behind 40, of the model, without 1 att/,
    );
    // What was measured is what is predicted of it.
    const seconds = predictSecondsPerToken(workOf(openModel(path)), device);
    assert.ok(seconds > 1e-6 && seconds < 10, String(seconds));
    const timer = await nodeTimer();
    const done: number[] = [];
    const models = [tinyDecoder(), tinyDecoder({ attention: false })].map(located);
    const request = { context: 50, batch: 1, rounds: 2, prompt: true };
    const times = await timer.time(models, { ...request, onTurn: (at) => done.push(at) });
    for (const { token, prompt } of times) {
      assert.ok([token, prompt].every((list) => list.length === 2 && list.every((each) => each > 0 && each < 10)));
    }
    assert.equal(done, [0, 1, 2, 3, 4, 5]);
  }));

test.run();
