import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { extrasOfBench, extrasOfVerify, renderReport } from '../../../api/plan/page/index.js';
import { NO_CHANGE } from '../../../runtime/index.js';
import { needChromium } from '../../helpers/chromium.js';
import { looksRight } from '../../helpers/page-look.js';
import { planExample } from '../../helpers/plan-example.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('report');

const HOSTILE = `<img src="https://example.invalid/x" onerror="alert(1)"></title><script>alert(2)</script>`;
/** The model of `planExample`, and what was made of it. */
const FILES = ['ab', 'cd'].map((byte) => ({ file: 'x.onnx', bytes: 1, sha256: byte.repeat(32) }));
const VERIFIED = {
  kind: 'onnx-fuse verification',
  version: 1,
  files: FILES,
  text: { source: 'heldout.txt', quality: { kl: 0.0378, perplexityIncrease: 0.031, top1: 0.921, positions: 4074 } },
  continuations: [
    { prompt: 'Once', original: ' upon a time', fused: ' upon a hill', differsAt: 2 },
    { prompt: [1, 2], original: [3, 4], fused: [3, 5], differsAt: 1 },
  ],
};
const BENCHED = {
  kind: 'onnx-fuse benchmark',
  version: 1,
  files: FILES,
  prompt: 96,
  provider: 'cpu',
  rows: [{ batch: 8, phase: 'decode', ratio: { median: 0.8 }, ms: [{ median: 10 }, { median: 8 }] }],
};

/** As the command line makes it. */
const command = (model: string): string => `onnx-fuse ${model} out.onnx --plan plan.json`;

/** What a person reads. */
const textOf = (page: string): string =>
  page
    .replace(/<style>.*?<\/style>/s, '')
    .replace(/<[^>]*>/g, ' ')
    .replace(/\s+/g, ' ');

test('the page says the plan, its figures, what verify and bench measured, and nothing it does not know', () => {
  const page = renderReport(planExample(), { ...extrasOfVerify(VERIFIED), ...extrasOfBench(BENCHED) });
  const text = textOf(page);
  for (const said of [
    'Remove the attention of layers 3, 5; put a map in the place of the attention of layer 4; fuse the FFNs of layers 3-4 into one.',
    'KL at most 0.0500',
    '0.0378',
    'held out: heldout.txt',
    'Once …',
    'one token, batch 8, cpu 1.25× 10.0 ms 8.00 ms',
    'attentions removed, FFNs in order',
  ]) {
    assert.ok(text.includes(said), `${said} is not in: ${text}`);
  }
  assert.not.match(text, /NaN|undefined|null|Infinity|\[object/);
  assert.is(renderReport(planExample(), { ...extrasOfVerify(VERIFIED), ...extrasOfBench(BENCHED) }), page);
  assert.match(textOf(renderReport(planExample())), /no benchmark was given.*predicted/);
});

test('what was not measured makes no section: it is named at the end, with the reason', () => {
  const sections = (page: string): string[] =>
    [...page.matchAll(/<section id="([^"]*)"/g)].map(([, id]) => id as string);
  const whole = renderReport(planExample(), { ...extrasOfVerify(VERIFIED), ...extrasOfBench(BENCHED) });
  assert.equal(sections(whole), [
    ...['layers', 'dependency', 'trade-off', 'random', 'ablations', 'samples', 'bench', 'method'],
  ]);
  assert.not.match(textOf(whole), /not measured/i);
  const bare = renderReport({ ...planExample(), random: null, ablations: null });
  assert.equal(sections(bare), ['layers', 'dependency', 'trade-off', 'method', 'absent']);
  assert.match(
    textOf(bare),
    /What is not on this page Random plans of the same size Not measured: .*Measured speed Not measured/,
  );
});

test('the head shows a measured speed before the predicted one, and the command that applies the plan', () => {
  const speeds = (page: string): string[] =>
    [...page.matchAll(/<dt>(\w+ speed)<\/dt><dd class="value">([^<]*)/g)].map(([, name, value]) => `${name} ${value}`);
  assert.equal(speeds(renderReport(planExample(), extrasOfBench(BENCHED))), [
    'Measured speed 1.25×',
    'Predicted speed 1.20×',
  ]);
  assert.equal(speeds(renderReport(planExample())), ['Predicted speed 1.20×']);
  const shown = (page: string): string | undefined => /<code>(.*?)<\/code>/.exec(page)?.[1]?.replace(/<[^>]*>/g, '');
  assert.is(shown(renderReport(planExample(), {}, command)), 'onnx-fuse example.onnx out.onnx --plan plan.json');
  assert.is(shown(renderReport(planExample())), undefined);
  // There is nothing to apply.
  const nothing = { ...planExample(), chosen: { ...planExample().chosen, ...NO_CHANGE } };
  assert.is(shown(renderReport(nothing, {}, command)), undefined);
});

test('a colour of the page means one thing', () => {
  const page = renderReport(planExample(), { ...extrasOfVerify(VERIFIED), ...extrasOfBench(BENCHED) });
  const [style = ''] = page.match(/<style>.*?<\/style>/s) ?? [];
  const classesOf = (name: string): string[] =>
    [...style.matchAll(/([^{}]+)\{([^{}]*)\}/g)]
      .filter(([, , rules = '']) => rules.includes(`var(--${name})`))
      .flatMap(([, selector = '']) => selector.trim().split(/[ ,]/))
      .filter((part) => part.startsWith('.'));
  // The limit, and what is over it; what was chosen; parts of layers by their kind.
  assert.equal(classesOf('limit').sort(), ['.limit', '.over', '.over']);
  assert.equal(classesOf('chosen').sort(), ['.bar-marked', '.chosen', '.dot-chosen', '.line-chosen', '.marked']);
  assert.equal(classesOf('attention').sort(), ['.attention', '.key.attention']);
  assert.equal(classesOf('ffn').sort(), ['.ffn', '.key.ffn']);
  assert.equal(classesOf('fused').sort(), ['.fused', '.key.fused', '.line-fused']);
  assert.equal(classesOf('mapped').sort(), ['.key.mapped', '.mapped']);
  // The scale of the matrix has no hue: red, green and blue are close.
  const steps = [...style.matchAll(/\.h\d+\{fill:rgb\((\d+),(\d+),(\d+)\)/g)].map((found) =>
    found.slice(1).map(Number),
  );
  assert.is(steps.length, 32);
  for (const step of steps) assert.ok(Math.max(...step) - Math.min(...step) < 12, `${step}`);
});

test('names and texts of others are shown and never run', () => {
  const plan = planExample();
  const page = renderReport(
    { ...plan, model: { ...plan.model, file: HOSTILE }, data: { ...plan.data, source: HOSTILE } },
    extrasOfVerify({ continuations: [{ prompt: HOSTILE, original: HOSTILE, fused: HOSTILE }] }),
    command,
  );
  assert.not.match(page, /<img|<script|onerror="/);
  assert.ok(page.includes('&lt;script&gt;alert(2)&lt;/script&gt;'));
  // Not a thing is loaded: no element has an address.
  assert.equal(page.match(/<[^>]*\s(?:src|href)=/g) ?? [], []);
});

test('evidence that is missing or of another kind is said not to be measured', () => {
  const odd = { ...planExample(), scores: { layers: 'x' }, front: [null], ablations: [{ name: 3 }], data: {} };
  const text = textOf(renderReport(odd as never));
  assert.match(text, /not measured/i);
  assert.not.match(text, /NaN|undefined|null|\[object/);
});

test('report writes the page, refuses what is no evidence in one line, and keeps its inputs', () =>
  inWorkspace(async (folder) => {
    const at = (name: string): string => join(folder, name);
    const put = (name: string, value: unknown): string => {
      writeFileSync(at(name), typeof value === 'string' ? value : JSON.stringify(value));
      return at(name);
    };
    const plan = put('plan.json', planExample());
    const verified = put('verify.json', VERIFIED);
    const benched = put('bench.json', BENCHED);
    const page = at('report.html');
    const made = await runCli('report', plan, '-o', page, '--verify', verified, '--bench', benched);
    assert.is(made.code, 0, made.stderr);
    assert.ok(made.stdout.includes(page));
    const first = readFileSync(page, 'utf8');
    assert.is(first, renderReport(planExample(), { ...extrasOfVerify(VERIFIED), ...extrasOfBench(BENCHED) }, command));

    const refused: readonly (readonly [RegExp, ...string[]])[] = [
      [/OF_NO_SUCH_FILE/, at('absent.json')],
      [/OF_EVIDENCE .*absent\.txt|OF_NO_SUCH_FILE/, plan, '--verify', at('absent.txt')],
      [/OF_EVIDENCE .*no JSON/, plan, '--verify', put('broken.json', '{')],
      [/OF_EVIDENCE .*no measurement/, plan, '--verify', benched],
      [/OF_EVIDENCE .*no measurement/, plan, '--bench', verified],
      [/OF_EVIDENCE .*no onnx-fuse verification/, plan, '--verify', put('old.json', { ...VERIFIED, kind: undefined })],
      [/OF_EVIDENCE .*which models it is of/, plan, '--verify', put('of.json', { ...VERIFIED, files: [] })],
      [
        /OF_EVIDENCE .*original has sha256 cd.*that of the plan ab/,
        plan,
        '--bench',
        put('other.json', { ...BENCHED, files: [FILES[1]] }),
      ],
      [
        /OF_EVIDENCE .*mixed\.json: its changed model has sha256 ab.*the other file cd/,
        plan,
        '--verify',
        verified,
        '--bench',
        put('mixed.json', { ...BENCHED, files: [FILES[0], FILES[0]] }),
      ],
      [/OF_PLAN .*kind/, verified],
      [/OF_PLAN .*changes layer 5/, put('short.json', planExample(5))],
    ];
    for (const [wanted, ...words] of refused) {
      const { code, stderr } = await runCli('report', ...words, '-o', page);
      assert.is(code, 2, `${words.join(' ')}: ${stderr}`);
      assert.match(stderr, wanted);
      assert.is(stderr.trim().split('\n').length, 1, stderr);
      assert.is(readFileSync(page, 'utf8'), first, 'the page that was there');
    }
    const same = await runCli('report', plan, '-o', plan);
    assert.is(same.code, 2);
    assert.match(same.stderr, /OF_OUTPUT_IS_INPUT .*would overwrite/);
    assert.equal(JSON.parse(readFileSync(plan, 'utf8')), JSON.parse(JSON.stringify(planExample())));

    const nowhere = await runCli('report', plan, '-o', join(folder, 'absent', 'report.html'));
    assert.is(nowhere.code, 2);
    assert.match(nowhere.stderr, /OF_USAGE .*the output folder does not exist/);
    assert.not(existsSync(`${page}.new`));
  }));

/** Where the matrix and its text are. */
const BESIDE = `(() => {
  const [picture, text] = ['svg', 'figcaption'].map((name) => document.querySelector('#dependency ' + name).getBoundingClientRect());
  return picture.right <= text.left && text.top < picture.bottom;
})()`;

test('in a browser the page fits 1280 and 390 pixels, light and dark, is legible, and loads nothing', async () => {
  const chromium = needChromium();
  await inWorkspace(async (folder) => {
    for (const depth of [12, 30, 126]) {
      const file = join(folder, `report-${depth}.html`);
      const extras = { ...extrasOfVerify(VERIFIED), ...extrasOfBench(BENCHED) };
      writeFileSync(file, renderReport(planExample(depth), extras, command));
      await looksRight(chromium, file, `${depth} layers`, async (page, width, where) => {
        assert.is(await page.evaluate(BESIDE), width > 600, `the matrix beside its text: ${where}`);
      });
    }
  });
});

test.run();
