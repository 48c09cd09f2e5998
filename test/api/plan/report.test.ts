import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { extrasOfBench, extrasOfVerify, renderReport } from '../../../api/plan/page/index.js';
import { needChromium, withPage } from '../../helpers/chromium.js';
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

test('names and texts of others are shown and never run', () => {
  const plan = planExample();
  const page = renderReport(
    { ...plan, model: { ...plan.model, file: HOSTILE }, data: { ...plan.data, source: HOSTILE } },
    extrasOfVerify({ continuations: [{ prompt: HOSTILE, original: HOSTILE, fused: HOSTILE }] }),
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
    assert.is(first, renderReport(planExample(), { ...extrasOfVerify(VERIFIED), ...extrasOfBench(BENCHED) }));

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

/** In the page: how far it is too wide, whether it runs anything, and the least contrast of text on what is behind it. */
const LOOK = `(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = rgb(getComputedStyle(document.body).backgroundColor);
  const contrast = (el) => {
    const of = getComputedStyle(el);
    const [a, b] = [light(rgb(of.color)), light(behind)].sort((p, q) => q - p);
    return (a + 0.05) / (b + 0.05);
  };
  const texts = [...document.querySelectorAll('h1,h2,h3,p,dt,dd,td,th,summary,blockquote')];
  return {
    over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    scripts: document.scripts.length,
    background: light(behind),
    contrast: Math.min(...texts.map(contrast)),
    small: Math.min(...texts.map((el) => parseFloat(getComputedStyle(el).fontSize))),
  };
})()`;

interface Look {
  readonly over: number;
  readonly scripts: number;
  readonly background: number;
  readonly contrast: number;
  readonly small: number;
}

test('in a browser the page fits 1280 and 390 pixels, light and dark, is legible, and loads nothing', async () => {
  const chromium = needChromium();
  await inWorkspace(async (folder) => {
    for (const depth of [12, 126]) {
      const file = join(folder, `report-${depth}.html`);
      writeFileSync(file, renderReport(planExample(depth), { ...extrasOfVerify(VERIFIED), ...extrasOfBench(BENCHED) }));
      await withPage(chromium, async (page) => {
        for (const width of [1280, 390]) {
          for (const scheme of ['light', 'dark'] as const) {
            await page.open(file, width, scheme);
            const look = (await page.evaluate(LOOK)) as Look;
            const where = `${depth} layers, ${width} pixels, ${scheme}: ${JSON.stringify(look)}`;
            assert.is(look.over, 0, where);
            assert.is(look.scripts, 0, where);
            assert.is(look.background > 0.5, scheme === 'light', where);
            // WCAG 2.2, 1.4.3 (AA).
            assert.ok(look.contrast >= 4.5, where);
            assert.ok(look.small >= 11, where);
            assert.equal(page.requests, [], where);
          }
        }
      });
    }
  });
});

test.run();
