import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { branchCosts } from '../../../api/plan/plan.js';
import { fuseOptionsOf, type PlanFile, planText, readPlanFile } from '../../../api/plan/plan-file.js';
import { PlanProgress } from '../../../api/plan/resume.js';
import { openModel } from '../../../ir/index.js';
import { fuseSteps, layersOf, printPipeline } from '../../../passes/index.js';
import { cutPieces, type FusionGain, NO_CHANGE, namedDevice, type SpeedGoal } from '../../../runtime/index.js';
import { GOLDEN_ROOT } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('plan');
const models = join(GOLDEN_ROOT, 'models');
const MODEL = join(models, 'tales12-fp16.onnx');
const TEXT = join(models, 'tales12.txt');
/** Five sequences of text: enough to see that a plan is one, not to trust it. */
const fiveOf = (length: number): string[] => {
  const limits = ['--length', String(length), '--max-tokens', String(5 * length)];
  return ['--data', TEXT, ...limits, '--device', 'h100x8', '--quiet'];
};
const QUICK = fiveOf(96);

test('FFNs are fused unasked where what is to be fast was measured to be faster, and by default prompts no slower', () => {
  const [original, pieces] = [openModel(MODEL), cutPieces(MODEL)];
  const gain = (
    fusion: FusionGain | null,
    fuse: 'auto' | 'always' = 'auto',
    ranks = 1,
    optimizeFor: SpeedGoal = 'both',
  ): number => {
    const device = { ...namedDevice('h100x8'), ranks, secondsPerFfn: 5e-6, fusion };
    return branchCosts(original, pieces, device, {
      fuse,
      optimizeFor,
      recover: true,
      quantizeMaps: null,
      mapRank: null,
      keepLast: 1,
      lead: false,
    }).fusion(3);
  };
  assert.is(gain({ token: 1e-3, prompt: 0 }), 2e-3);
  assert.is(gain({ token: 1e-3, prompt: -1e-3 }), 0);
  assert.is(gain({ token: -1e-3, prompt: 1e-3 }), 0);
  // A form that gains at decoding and loses on prompts, and the reverse.
  const lopsided = (token: number, prompt: number) =>
    (['decode', 'prompt', 'both'] as const).map((goal) => gain({ token, prompt }, 'auto', 1, goal));
  assert.equal(lopsided(1e-3, -4e-3), [2e-3, 0, 0]);
  assert.equal(lopsided(-1e-3, 4e-3), [0, 8e-3, 0]);
  // Not measured: among ranks there is an all-reduce less, on one processor nothing is known.
  assert.is(gain(null), 0);
  assert.is(gain(null, 'auto', 8), 1e-5);
  assert.is(gain({ token: -1e-3, prompt: -1e-3 }, 'always'), 1e-5);
});

const planOf = (path: string): PlanFile => JSON.parse(readFileSync(path, 'utf8')) as PlanFile;

test('a plan stays within its budget on text that it was not searched on, and makes the model it says', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'plan.json');
    const argv = ['plan', MODEL, '-o', path, ...QUICK, '--max-kl', '0.1', '--max-evaluations', '14'];
    const made = await runCli(...argv, '--random', '4');
    assert.is(made.code, 0, made.stderr);
    const plan = planOf(path);
    const { chosen } = plan;
    const gone = [...chosen.removeAttention, ...chosen.linearizeAttention];
    assert.ok(gone.length >= 2, planText(chosen));
    assert.ok(chosen.quality.kl <= 0.09 && chosen.check.kl <= 0.1, `${chosen.quality.kl}, ${chosen.check.kl}`);
    assert.ok(chosen.quality.kl > 0 && chosen.predictedSpeedup > 1);
    assert.is(plan.data.fitted + plan.data.searched + plan.data.checked, 5 * 95);
    // Plans that were searched with maps of their moves alone may have to be fitted for the choice.
    assert.ok(plan.evaluated.length > 5 && plan.evaluated.length <= 16, String(plan.evaluated.length));
    const measured = plan.evaluated.map(({ quality: _, ...rest }) => JSON.stringify(rest));
    assert.is(new Set(measured).size, measured.length, 'a plan was measured twice');
    // Nothing of the front beats another in both.
    for (const [i, point] of plan.front.entries()) {
      const next = plan.front[i + 1];
      if (next) assert.ok(next.predictedSpeedup > point.predictedSpeedup && next.quality.kl > point.quality.kl);
    }
    assert.is(plan.front[0]?.predictedSpeedup, 1);
    assert.is(plan.random?.count, 4);
    const better = plan.random?.kl.filter((kl) => kl < chosen.quality.kl) ?? [];
    assert.equal(better, [], 'a random plan is better');
    assert.ok(made.stdout.includes(`plan: ${planText(chosen)}`), made.stdout);
    assert.not(existsSync(`${path}.progress`));

    const out = join(folder, 'out.onnx');
    const fused = await runCli(MODEL, out, '--plan', path, '--quiet');
    assert.is(fused.code, 0, fused.stderr);
    const layers = layersOf(openModel(out)).layers;
    assert.equal(layers.filter(({ attention }) => attention).length, 12 - gone.length, 'attentions that are left');
  }));

test('a plan is optimized for what it was asked: a device on which tokens gain and prompts lose', () =>
  inWorkspace(async (folder) => {
    const costs = { bytesPerSecond: 1e12, secondsPerAttention: 1e-3, secondsPerFfn: 1e-3, secondsPerLinear: 0 };
    const device = join(folder, 'device.json');
    const write = (more: object) =>
      writeFileSync(device, JSON.stringify({ ranks: 1, ...costs, secondsPerToken: 0.012, ...more }));
    const make = async (goal: string, ...more: string[]) => {
      const path = join(folder, `${goal}.json`);
      const limits = ['--length', '32', '--max-tokens', '160', '--data', TEXT];
      const fixed = ['--remove-attention', '3-6', '--no-recover', '--optimize-for', goal, ...more];
      const page = join(folder, `${goal}.html`);
      const result = await runCli('plan', MODEL, '-o', path, '--report', page, '--device', device, ...limits, ...fixed);
      return { ...result, plan: () => planOf(path), page: () => readFileSync(page, 'utf8') };
    };
    write({ fusion: { token: 1e-3, prompt: -1e-3 } });
    const decode = await make('decode');
    assert.is(decode.code, 0, decode.stderr);
    assert.is(decode.plan().options.optimizeFor, 'decode');
    assert.equal(decode.plan().chosen.runs, [[3, 4, 5]]);
    assert.match(decode.stdout, /optimized for decoding/);
    const both = await make('both');
    assert.equal(both.plan().chosen.runs, []);
    assert.ok(both.plan().chosen.predictedSpeedup < decode.plan().chosen.predictedSpeedup);
    const unknown = await make('prompt');
    assert.match(unknown.stderr, /OF_USAGE --device: it does not say what a prompt costs/);

    // What prompts cost is another matter: attentions cost five times as much there, of 60 + 12 + 12 ms.
    write({
      fusion: { token: 1e-3, prompt: -1e-3 },
      prompt: { ...costs, secondsPerAttention: 5e-3, secondsPerToken: 0.012 },
    });
    const prompt = await make('prompt', '--target-speedup', '1.3');
    assert.is(prompt.code, 0, prompt.stderr);
    const { chosen, cost, options } = prompt.plan();
    assert.equal([chosen.runs, options.optimizeFor], [[], 'prompt']);
    assert.ok(Math.abs(cost.originalSeconds - 0.084) < 1e-3, String(cost.originalSeconds));
    assert.ok(Math.abs(chosen.predictedSpeedup - 84 / 64) < 0.01, String(chosen.predictedSpeedup));
    assert.match(prompt.stdout, /predicted: 84\S* ms a prompt of 128 -> /);
    assert.match(prompt.stdout, /5\S* ms an attention/);
    assert.match(prompt.page(), /prompts of 128 tokens/);
    assert.match(decode.page(), /<dt>optimized for<\/dt><dd>tokens<\/dd>/);
    // The same four attentions are no such speed for tokens.
    const slow = await make('both', '--target-speedup', '1.3');
    assert.match(slow.stderr, /OF_TOO_SLOW/);
  }));

test('the same text gives the same plan, measured anew', () =>
  inWorkspace(async (folder) => {
    const plans = [];
    for (const name of ['a.json', 'b.json']) {
      const path = join(folder, name);
      const least = ['--max-kl', '0.1', '--max-evaluations', '4', '--random', '2'];
      const { code, stderr } = await runCli('plan', MODEL, '-o', path, ...fiveOf(32), ...least);
      assert.is(code, 0, stderr);
      plans.push(planOf(path));
    }
    assert.equal(plans[0], plans[1]);
  }));

test('scores say how much each layer matters, and later blocks depend on earlier ones alone', () =>
  inWorkspace(async (folder) => {
    const [path, page] = [join(folder, 'plan.json'), join(folder, 'plan.html')];
    const made = await runCli(
      'plan',
      MODEL,
      '-o',
      path,
      ...QUICK,
      '--remove-attention',
      '3-5',
      '--ablate',
      '--scores',
      'all',
      '--no-recover',
      '--report',
      page,
    );
    assert.is(made.code, 0, made.stderr);
    // The text has the paths as they were typed; the page, which others read, does not say where they lie here.
    assert.ok(made.stdout.includes(`apply it with: onnx-fuse ${MODEL} out.onnx --plan ${path}`), made.stdout);
    const drawn = readFileSync(page, 'utf8');
    const command = /<code>(.*?)<\/code>/.exec(drawn)?.[1]?.replace(/<[^>]*>/g, '');
    assert.is(command, 'onnx-fuse tales12-fp16.onnx out.onnx --plan plan.json');
    assert.not(drawn.includes(folder));
    const { scores: found, chosen, ablations } = planOf(path);
    const scores = found.more;
    if (!scores) throw new Error('there are no detailed scores');
    assert.equal(scores.layers, [...Array(12).keys()]);
    for (const [i, row] of scores.dependency.entries()) {
      assert.ok(
        row.every((each, j) => (j <= i ? each === 0 : each > 0 && each < 2)),
        `row ${i}: ${row}`,
      );
    }
    for (const list of [scores.withoutAttention, scores.withoutFfn, scores.withoutBlock, scores.blockInfluence]) {
      assert.ok(list.length === 12 && list.every((each) => each !== null && each > 0), String(list));
    }
    // tales12 was trained to do without the attentions of layers 2 to 10.
    const kl = scores.withoutAttention as number[];
    assert.is(found.mappedAttention.length, 12);
    assert.ok(Math.min(kl[0]!, kl[1]!) > Math.max(...kl.slice(2, 11)), String(kl));
    assert.equal([chosen.removeAttention, chosen.runs], [[3, 4, 5], [[3, 4]]]);
    assert.is(ablations?.length, 6);
    const of = (name: RegExp) => ablations?.find((each) => name.test(each.name))?.quality.kl ?? Number.NaN;
    assert.ok(of(/removed$/) > of(/kept apart/), 'removing the FFNs is worse than fusing them');
    assert.ok(of(/reverse/) !== of(/in order/) && of(/one norm/) !== of(/kept apart/), 'they are different functions');
  }));

test('an interrupted run goes on where it was, under the same circumstances only', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'plan.json.progress');
    let count = 0;
    const measure = () => Promise.resolve(++count);
    const first = new PlanProgress(path, { model: 'a' });
    assert.is(await first.once('x', measure), 1);
    assert.is(await first.once('x', measure), 1);
    assert.is(await new PlanProgress(path, { model: 'a' }).once('x', measure), 1);
    assert.is(await new PlanProgress(path, { model: 'b' }).once('x', measure), 2);
    // What was infinitely bad is infinitely bad when it goes on.
    const infinite = await new PlanProgress(path, { model: 'b' }).once('y', async () => ({ kl: 1 / 0 }));
    assert.equal(await new PlanProgress(path, { model: 'b' }).once('y', () => Promise.reject()), infinite);
    writeFileSync(path, '{ broken');
    assert.is(await new PlanProgress(path, { model: 'b' }).once('x', measure), 3);
  }));

test('what cannot be planned is one line', () =>
  inWorkspace(async (folder) => {
    const out = join(folder, 'plan.json');
    const refused: [string[], RegExp][] = [
      [['--data', TEXT, '--target-speedup', '0.9'], /OF_USAGE --target-speedup: it is 0.9, expected more than 1/],
      [['--data', TEXT], /OF_USAGE --max-kl: there is neither a budget nor a speed/],
      [['--data', join(folder, 'none'), '--max-kl', '1'], /OF_NO_SUCH_FILE/],
      [['--data', TEXT, '--max-kl', '1', '--device', 'b9'], /OF_USAGE --device: there is no device 'b9'/],
      [['--data', TEXT, '--remove-attention', '3-'], /OF_USAGE --remove-attention/],
      [['--data', TEXT, '--max-kl', '1', '--max-tokens', '40'], /OF_TOKEN_DATA .*cannot be parted/],
    ];
    for (const [argv, expected] of refused) {
      const { code, stderr } = await runCli('plan', MODEL, '-o', out, '--quiet', ...argv);
      assert.is.not(code, 0, argv.join(' '));
      assert.match(stderr, expected);
      assert.is(stderr.trimEnd().split('\n').length, 1, stderr);
    }
    assert.not(existsSync(out));
  }));

test('a file that is no plan, or one of another model, is refused with what is wrong', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'plan.json');
    const good = {
      kind: 'onnx-fuse plan',
      version: 2,
      model: { file: 'x.onnx', sha256: '00' },
      fit: null,
      chosen: { ...NO_CHANGE, removeAttention: [3] },
    };
    const bad: [unknown, RegExp][] = [
      ['{', /OF_PLAN .*no JSON/],
      [[], /OF_PLAN .*the file is \[\], expected an object/],
      [{ ...good, kind: 'x' }, /kind is "x"/],
      [{ ...good, version: 3 }, /version is 3, expected 2/],
      [{ ...good, version: 1, options: { norm: 'last' } }, /version is 1, expected 2/],
      [{ ...good, version: 1, options: { norm: 'fold' } }, /made for another model: 'x.onnx'/],
      [{ ...good, chosen: { ...good.chosen, removeAttention: ['3'] } }, /chosen.removeAttention is \["3"\]/],
      [{ ...good, chosen: { ...good.chosen, runs: [3] } }, /chosen.runs is \[3\], expected a list of runs/],
      [{ ...good, chosen: { ...good.chosen, runs: [[3]] } }, /chosen.runs .*a run needs two layers at least/],
      [
        {
          ...good,
          chosen: {
            ...good.chosen,
            windows: [
              [3, 4],
              [4, 5],
            ],
          },
        },
        /chosen.windows .*layer 4 is in two runs/,
      ],
      [{ ...good, chosen: { ...good.chosen, linearizeAttention: [3] } }, /fit is null, expected the file of the maps/],
      [{ ...good, fit: { file: '../x', sha256: '00' } }, /fit.file is "\.\.\/x", expected the name of a file/],
      [good, /made for another model: 'x.onnx'/],
    ];
    for (const [value, expected] of bad) {
      writeFileSync(path, typeof value === 'string' ? value : JSON.stringify(value));
      const { code, stderr } = await runCli(MODEL, join(folder, 'out.onnx'), '--plan', path, '--quiet');
      assert.is(code, 2);
      assert.match(stderr, expected);
    }
    const { code, stderr } = await runCli(MODEL, join(folder, 'o.onnx'), '--plan', path, '--keep-last', '0');
    assert.is(code, 2);
    assert.match(stderr, /OF_USAGE --keep-last: it has no effect beside --plan/);
  }));

test('a plan of version 1, which knew no maps, is read as one without any', () =>
  inWorkspace((folder) => {
    const path = join(folder, 'plan.json');
    const { linearizeAttention: _, linearizeFfn: __, ...unmapped } = { ...NO_CHANGE, runs: [[2, 3, 5]] };
    const old = { kind: 'onnx-fuse plan', version: 1, model: { sha256: '00' }, options: { norm: 'fold' } };
    writeFileSync(path, JSON.stringify({ ...old, chosen: unmapped, front: [unmapped], evaluated: [] }));
    const plan = readPlanFile(path);
    assert.equal(fuseOptionsOf(plan.chosen, null).runs, [[2, 3, 5]]);
    assert.equal([plan.fit, plan.front], [null, [{ ...NO_CHANGE, runs: [[2, 3, 5]] }]]);
  }));

test('a plan without runs fuses nothing, and one with runs exactly those', () => {
  const choice = { ...NO_CHANGE, removeAttention: [3, 4] };
  const text = (...plan: Parameters<typeof fuseOptionsOf>) => printPipeline(fuseSteps(fuseOptionsOf(...plan)));
  assert.is(text(choice, null), 'inline-functions,remove-attention{layers=3-4},drop-dead');
  assert.match(text({ ...choice, runs: [[3, 4]] }, null), /parallelize-ffn\{runs=3-4\}/);
  const mapped = text({ ...NO_CHANGE, linearizeAttention: [5], linearizeFfn: [7] }, 'plan.onnx-fuse-fit');
  assert.match(mapped, /linearize\{attention=5 ffn=7 map=\S*plan.onnx-fuse-fit\}/);
});

test.run();
