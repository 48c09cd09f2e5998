/** The page of `inspect --html`: what it says, that nothing of a model runs in it, and where it is written. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { inspectionPage } from '../../../api/commands/inspection-page.js';
import { weightShares } from '../../../api/inspect/weights.js';
import { type Model, openHeader, parseModel, saveModel, visible } from '../../../ir/index.js';
import { weightBytes } from '../../../runtime/index.js';
import { buildDecoder } from '../../bench/decoder.js';
import { needChromium } from '../../helpers/chromium.js';
import { EVIL } from '../../helpers/evil.js';
import { GOLDEN_ROOT } from '../../helpers/golden.js';
import { goldenInput } from '../../helpers/golden-check.js';
import { looksRight } from '../../helpers/page-look.js';
import { TALES12 } from '../../helpers/paths.js';
import { writeSmallDecoder } from '../../helpers/small-decoder.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('inspection page');

const HOSTILE = `<img src="https://example.invalid/x" onerror="alert(1)"></title><script>alert(2)</script>${EVIL}`;

/** A decoder of which the layers in `without` have no attention, and every seventh FFN is narrower. */
function decoderOf(count: number, without: readonly number[] = []): Model {
  const layers = Array.from({ length: count }, (_, i) => ({
    attention: !without.includes(i),
    width: i % 7 === 0 ? 32 : 48,
  }));
  const sizes = { hidden: 64, heads: 4, kvHeads: 2, headSize: 16, vocabulary: 96 };
  return buildDecoder({ form: 'decomposed', dtype: 'float', ...sizes, layers }).model;
}

/** What a person reads. */
const textOf = (page: string): string =>
  page
    .replace(/<style>.*?<\/style>/s, '')
    .replace(/<[^>]*>/g, ' ')
    .replace(/\s+/g, ' ');

test('the page says the layers, what would fuse and why not, and where the weights are', async () => {
  const model = decoderOf(12, [4, 5, 6, 8]);
  const text = textOf(
    await inspectionPage({ model, worded: (reason) => `because ${reason}`, next: 'onnx-fuse plan x' }),
  );
  for (const said of [
    '12 layers: the FFNs of layers 4-5 would fuse into one.',
    'onnx-fuse plan x',
    'Layers are named model.layers.N.',
    '0 decomposed SwiGLU 32 RMSNorm float',
    '1-3 decomposed SwiGLU 48 RMSNorm float',
    'layers 4-5 2 x 48 96',
    'FFN 0-3, 7, 9-11 because its attention stays',
  ]) {
    assert.ok(text.includes(said), `${said} is not in: ${text}`);
  }
  assert.not.match(text, /NaN|undefined|null|Infinity|\[object/);
  const shares = [...text.matchAll(/ (attention|FFN|token embeddings|head and the rest) ([\d.]+) % /g)];
  assert.equal(
    shares.map(([, name]) => name),
    ['attention', 'FFN', 'token embeddings', 'head and the rest'],
  );
  const sum = shares.reduce((all, [, , share]) => all + Number(share), 0);
  assert.ok(Math.abs(sum - 100) < 0.3, `${sum}`);
});

test('the kinds of weights are all weights, of the input of every golden file, and every page of one can be drawn', async () => {
  let count = 0;
  for (const entry of readdirSync(GOLDEN_ROOT, { recursive: true, encoding: 'utf8' })) {
    if (!entry.endsWith('.golden')) continue;
    const model = goldenInput(entry.replaceAll('\\', '/').slice(0, -'.golden'.length));
    const { kinds } = weightShares(model);
    assert.ok(
      [...kinds.values()].every((bytes) => bytes >= 0),
      `${entry}: ${[...kinds]}`,
    );
    assert.is(
      [...kinds.values()].reduce((sum, bytes) => sum + bytes, 0),
      weightBytes(model),
      entry,
    );
    assert.not.match(textOf(await inspectionPage({ model })), /NaN|undefined|Infinity|\[object/, entry);
    count++;
  }
  assert.ok(count > 50, `${count} files`);
});

test('an embedding, a head and the branches are counted for what they are', () => {
  const { kinds } = weightShares(openHeader(TALES12));
  // 256 tokens of 128 numbers of 2 bytes, looked up and not the head, and the same as the head; 12 layers of attention.
  assert.is(kinds.get('table'), 256 * 128 * 2);
  assert.is(Math.floor((kinds.get('rest') ?? 0) / 1024), 64);
  assert.is(kinds.get('ffn'), 12 * (3 * 128 * 352 + 128) * 2);
});

test('names of a model are shown and never run', async () => {
  const model = decoderOf(3, [1]);
  model.producerName = HOSTILE;
  for (const value of [...model.graph.inputs]) {
    if (value.name.startsWith('past_key_values')) model.graph.renameValue(value, `${value.name}${HOSTILE}`);
  }
  const page = await inspectionPage({ model, next: HOSTILE });
  assert.not.match(page, /<img|<script|onerror="/);
  assert.is(page.split('\n').map(visible).join('\n'), page);
  assert.ok(page.split('&lt;script&gt;alert(2)&lt;/script&gt;').length > 4, 'the producer, caches and the command');
  assert.equal(page.match(/<[^>]*\s(?:src|href)=/g) ?? [], []);
  assert.match(page, /content="default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;"/);
});

test('a model without layers says why, once', async () => {
  const model = parseModel('<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }');
  const text = textOf(await inspectionPage({ model }));
  assert.match(text, / 0 layers\. /);
  assert.match(
    text,
    /What is not on this page Where the weights are The model has no weights\. Layer by layer No layers: /,
  );
  assert.is(text.split('No layers').length, 2);
  assert.not.match(text, /NaN|onnx-fuse plan/);
});

test('inspect --html writes the page whole or not at all, and nowhere else', () =>
  inWorkspace(async (folder) => {
    const model = writeSmallDecoder(folder);
    const [page, json] = [join(folder, 'layers.html'), join(folder, 'layers.json')];
    const made = await runCli('inspect', model, '--html', page, '--json', json);
    assert.is(made.code, 0, made.stderr);
    assert.ok(made.stdout.trimEnd().endsWith(`drawn in ${page}`), made.stdout);
    const first = readFileSync(page, 'utf8');
    assert.ok(first.endsWith('</html>\n'));
    assert.match(textOf(first), /onnx-fuse plan small\.onnx -o plan\.json .*--remove-attention takes it out/);
    // No folder of this machine is in what others may read.
    assert.not(first.includes(folder));
    assert.is(JSON.parse(readFileSync(json, 'utf8')).layers.length, 5);
    // The text is the same without the page.
    assert.is(made.stdout, `${(await runCli('inspect', model)).stdout}\ndrawn in ${page}\n`);

    writeFileSync(join(folder, 'broken.onnx'), 'no model');
    const before = readdirSync(folder).sort();
    const refused: readonly (readonly [number, RegExp, ...string[]])[] = [
      [2, /OF_USAGE --html: .*does not end in \.html/, model, '--html', `${model}.data`],
      [2, /OF_USAGE .*the output folder does not exist/, model, '--html', join(folder, 'absent', 'x.html')],
      [1, /broken\.onnx/, join(folder, 'broken.onnx'), '--html', page],
      // The place is looked at before the model.
      [2, /OF_USAGE .*the output folder/, join(folder, 'broken.onnx'), '--html', join(folder, 'absent', 'x.html')],
    ];
    for (const [code, wanted, ...words] of refused) {
      const found = await runCli('inspect', ...words);
      assert.is(found.code, code, `${words.join(' ')}: ${found.stderr}`);
      assert.match(found.stderr, wanted);
      assert.is(found.stderr.trim().split('\n').length, 1, found.stderr);
      assert.is(found.stdout, '');
    }
    assert.is(readFileSync(page, 'utf8'), first, 'the page that was there');
    assert.equal(readdirSync(folder).sort(), before);
    const own = join(folder, 'model.html');
    await saveModel(openHeader(TALES12), own);
    const same = await runCli('inspect', own, '--html', own);
    assert.is(same.code, 2);
    assert.match(same.stderr, /OF_OUTPUT_IS_INPUT/);
    assert.ok(existsSync(own));
  }));

test('in a browser the page fits 1280 and 390 pixels, light and dark, is legible, and loads nothing', async () => {
  const chromium = needChromium();
  await inWorkspace(async (folder) => {
    const models = [
      ['12', openHeader(TALES12)],
      ['30', decoderOf(30, [7, 8, 9, 20])],
      ['126', decoderOf(126, [40, 41, 42, 43, 90])],
    ] as const;
    for (const [depth, model] of models) {
      const file = join(folder, `layers-${depth}.html`);
      await inspectionPage({ model, next: 'onnx-fuse plan in.onnx -o plan.json --data calib.txt', output: file });
      await looksRight(chromium, file, `${depth} layers`);
    }
  });
});

test.run();
