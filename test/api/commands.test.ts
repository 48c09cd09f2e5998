/** What commands do, as functions of one program. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import {
  bench,
  checkPlan,
  checkVerification,
  Diagnostic,
  fuse,
  golden,
  inspect,
  open,
  plan,
  recover,
  report,
  verify,
} from '../../api/index.js';
import { ROOT, TALES12 } from '../helpers/paths.js';
import { suite } from '../helpers/suite.js';
import { inWorkspace } from '../helpers/workspace.js';

const test = suite('commands');
const TEXT = readFileSync(join(ROOT, 'golden/models/tales12.txt'));

/** Text to fit on, and other text to judge on. */
function texts(folder: string): { readonly data: string; readonly heldOut: string } {
  const [data, heldOut] = [join(folder, 'calib.txt'), join(folder, 'heldout.txt')];
  writeFileSync(data, TEXT.subarray(0, 1024));
  writeFileSync(heldOut, TEXT.subarray(4096, 4608));
  return { data, heldOut };
}

async function refusal(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof Diagnostic) return `${error.code} ${error.place}: ${error.text}`;
    throw error;
  }
  return 'nothing was refused';
}

test('a plan is made, applied, judged on text, timed and drawn', () =>
  inWorkspace(async (folder) => {
    const path = (name: string): string => join(folder, name);
    const { data, heldOut } = texts(folder);
    const made = await plan({
      model: TALES12,
      output: path('plan.json'),
      data: [data],
      length: 64,
      removeAttention: [4, 5],
      maxKl: 1e-9,
      recover: false,
      device: 'h100x8',
    });
    assert.equal(JSON.parse(readFileSync(path('plan.json'), 'utf8')), JSON.parse(JSON.stringify(made)));
    assert.not(existsSync(path('plan.json.progress')));
    assert.match(await refusal(() => checkPlan(made)), /^OF_QUALITY .*KL is .*the limit is 1e-9$/);
    const output = path('out.onnx');
    const run = await fuse({
      input: TALES12,
      output,
      plan: path('plan.json'),
      verify: false,
      report: path('run.json'),
    });
    assert.equal(JSON.parse(readFileSync(path('run.json'), 'utf8')).output, run.output);
    assert.match(run.output[0]?.sha256 ?? '', /^[0-9a-f]{64}$/);
    const found = await verify(TALES12, output, { data: heldOut, length: 64, timing: false, generate: 2 });
    assert.ok((found.text?.quality.kl ?? 0) > 0);
    assert.equal([found.kind, found.files.length, found.continuations?.length], ['onnx-fuse verification', 2, 2]);
    checkVerification(found, { maxKl: 10 });
    assert.match(await refusal(() => checkVerification(found, { maxKl: 1e-9 })), /^OF_QUALITY /);
    assert.match(await refusal(() => checkVerification(found, { tolerance: 0 })), /^OF_TOLERANCE /);
    const times = await bench([TALES12, output], { prompt: 4, decode: 2, rounds: 1 });
    assert.is(times.rows.length, 2);
    const page = await report({ plan: made, verify: found, bench: times, output: path('page.html') });
    assert.is(readFileSync(path('page.html'), 'utf8'), page);
    assert.match(page, /heldout\.txt/);
    assert.is(await report({ plan: path('plan.json'), verify: found, bench: times }), page, 'a file says the same');
    const { files } = times;
    const other = { ...times, files: [...files].reverse() };
    assert.match(
      await refusal(() => report({ plan: made, bench: other })),
      /^OF_EVIDENCE benchmark: its original has sha256/,
    );
  }));

test('recover fits maps for a list of layers, and says what they are worth', () =>
  inWorkspace(async (folder) => {
    const { data, heldOut } = texts(folder);
    const output = join(folder, 'out.onnx');
    const request = { input: TALES12, output, removeAttention: [5], data: [data], heldOut, length: 64 };
    const { recovery, spoken, options } = await recover({ ...request, prompt: 'Once', tokens: 3 });
    assert.equal(
      recovery?.maps.map(({ part, layer }) => `${part} ${layer}`),
      ['attention 5'],
    );
    assert.match(recovery?.source ?? '', /heldout\.txt/);
    assert.match(spoken?.after ?? '', /^Once/);
    assert.match(recovery?.fitted.source ?? '', /calib\.txt/);
    assert.ok((recovery?.fitted.positions ?? 0) > 500, String(recovery?.fitted.positions));
    assert.equal([options['removeAttention'], options['data']], [[5], [data]]);
    // Where it was made is no part of what was made.
    const again = join(folder, 'other.onnx');
    const { pipeline } = await recover({ ...request, output: again });
    assert.match(pipeline, /^inline-functions,linearize\{attention=5 map=sha256:[0-9a-f]{64}\},/);
    assert.ok(readFileSync(output).equals(readFileSync(again)));
    assert.equal(inspect(output).layers[5]?.attention.present, false);
    assert.match(await refusal(() => recover({ ...request, removeAttention: [] })), /^OF_USAGE option recover/);
    assert.match(await refusal(() => recover({ ...request, output: join(folder, 'no', 'out.onnx') })), /^OF_WRITE /);
    assert.match(
      await refusal(() => recover({ ...request, report: join(folder, 'no', 'r.json') })),
      /^OF_USAGE .*the output folder does not exist/,
    );
  }));

test('a model in memory is judged on text against a file, and not the other way round', () =>
  inWorkspace(async (folder) => {
    const { data } = texts(folder);
    const request = {
      data,
      length: 64,
      maxTokens: 256,
      timing: false,
      generate: 0,
      batches: [1],
      tokens: [3, 4],
    } as const;
    const same = await verify(TALES12, open(TALES12), request);
    assert.equal([same.text?.quality.kl, same.worst.relative, same.files.length], [0, 0, 1]);
    assert.match(await refusal(() => verify(open(TALES12), TALES12, request)), /^OF_USAGE option data/);
  }));

test('golden records, compares, and says what differs', () =>
  inWorkspace(async (folder) => {
    const [expected, output] = [join(folder, 'in.golden'), join(folder, 'out.onnx')];
    assert.match(await refusal(() => golden(TALES12, expected)), /^OF_GOLDEN .*in\.golden: there is no such file/);
    assert.equal(await golden(TALES12, expected, { accept: true }), { same: false, recorded: true, diff: null });
    assert.equal(await golden(TALES12, expected), { same: true, recorded: false, diff: null });
    await fuse({ input: TALES12, output, removeAttention: [4], verify: false });
    const { same, diff } = await golden(output, expected);
    assert.equal([same, /^-/m.test(diff ?? '')], [false, true]);
  }));

test('what cannot be asked for is refused before anything is done', () =>
  inWorkspace(async (folder) => {
    const output = join(folder, 'out.onnx');
    for (const [expected, work] of [
      [
        /^OF_USAGE keepLast: it has no effect beside a plan/,
        () => fuse({ input: TALES12, output, plan: 'p.json', keepLast: 0 }),
      ],
      [
        /^OF_USAGE removeAttention: it has no effect beside a pipeline/,
        () => fuse({ input: TALES12, output, pipeline: 'drop-dead', removeAttention: [4] }),
      ],
      [
        /^OF_USAGE removeAttention: expected numbers of layers, found -1/,
        () => fuse({ input: TALES12, output, removeAttention: [-1] }),
      ],
      [/^OF_USAGE option max-kl/, () => plan({ model: TALES12, output: join(folder, 'p.json') })],
      [/^OF_USAGE option target-speedup: it is 0.5/, () => plan({ model: TALES12, targetSpeedup: 0.5 })],
      [/^OF_OUTPUT_IS_INPUT /, () => plan({ model: TALES12, output: TALES12, maxKl: 1 })],
      [/^OF_USAGE option batch: '0' is no count/, () => bench([TALES12], { batch: [0] })],
      [/^OF_OUTPUT_IS_INPUT /, () => bench([TALES12], { calibrate: TALES12 })],
      [/^OF_OUTPUT_IS_INPUT /, () => golden(TALES12, TALES12, { accept: true })],
      [/^OF_OUTPUT_IS_INPUT /, () => fuse({ input: TALES12, output, report: output })],
    ] as const) {
      assert.match(await refusal(work), expected);
      assert.not(existsSync(output));
    }
  }));

test.run();
