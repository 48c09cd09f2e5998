/** What `onnx-fuse inspect` prints: 80 columns, and a row for layers that are alike. */
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type Inspection, inspectModel } from '../../api/inspect/inspect.js';
import { renderInspection } from '../../cli/text/inspection.js';
import { type Model, openModel, saveModel, visibleData } from '../../ir/index.js';
import { buildDecoder, type Form } from '../bench/decoder.js';
import { EVIL } from '../helpers/evil.js';
import { GOLDEN_ROOT } from '../helpers/golden.js';
import { goldenInput } from '../helpers/golden-check.js';
import { TALES12 } from '../helpers/paths.js';
import { suite } from '../helpers/suite.js';
import { inWorkspace, onTerminal, runCli } from '../helpers/workspace.js';

const test = suite('inspect');

/** A decoder whose layers without attention are these. */
function decoderOf(count: number, without: readonly number[], form: Form = 'skip'): Model {
  const layers = Array.from({ length: count }, (_, i) => ({ attention: !without.includes(i), width: 48 }));
  return buildDecoder({
    ...{ form, dtype: 'float', hidden: 64, heads: 4, kvHeads: 2, headSize: 16, vocabulary: 96 },
    layers,
  }).model;
}

function shown(model: Model, file = 'in.onnx'): string {
  return renderInspection(visibleData(inspectModel(model, file)));
}

function fits(text: string, what: string, width = 80): void {
  const long = text.split('\n').filter((line) => line.length > width);
  assert.equal(long, [], what);
  assert.not.match(text, /…/, `${what}: something was cut off`);
  assert.not.match(text, /NaN|undefined/, what);
}

test('the input of every golden file fits into 80 columns', () => {
  let count = 0;
  for (const entry of readdirSync(GOLDEN_ROOT, { recursive: true, encoding: 'utf8' })) {
    if (!entry.endsWith('.golden')) continue;
    const name = entry.replaceAll('\\', '/').slice(0, -'.golden'.length);
    fits(shown(goldenInput(name)), name);
    count++;
  }
  assert.ok(count > 50, `${count} files`);
});

test('layers that follow one another and are alike share a row, and reasons are said once', async () => {
  const { code, stdout } = await runCli('inspect', TALES12);
  assert.is(code, 0);
  fits(stdout, TALES12);
  assert.match(stdout, /^layers are named m\.model\.layers\.N$/m);
  assert.match(stdout, /^0-11 +decomposed +SwiGLU +352 +RMSNorm +float16 +no$/m);
  assert.match(stdout, /^ {2}layers 0-11: +its attention stays \(--remove-attention takes it out\)$/m);
  const gaps = shown(decoderOf(126, [1, ...Array.from({ length: 60 }, (_, i) => i + 40)], 'decomposed'));
  fits(gaps, '126 layers');
  const rows = [...gaps.matchAll(/^(\d+(?:-\d+)?) +(\S+) .*(yes|no)$/gm)].map((match) => match.slice(1));
  assert.equal(
    rows.map(([layers, attention, fuses]) => [layers, attention === '-', fuses]),
    [
      ['0', false, 'no'],
      ['1', true, 'no'],
      ['2-39', false, 'no'],
      ['40-98', true, 'yes'],
      ['99', true, 'no'],
      ['100-125', false, 'no'],
    ],
  );
  assert.match(gaps, /^layers 40-98 would fuse: 59 x 48 -> 2832$/m);
});

test('many layers that take turns are wrapped, and names of any length are parted and not cut off', () => {
  const odd = Array.from({ length: 63 }, (_, i) => 2 * i + 1);
  fits(shown(decoderOf(126, odd)), 'every second layer');
  const model = decoderOf(3, [1]);
  model.producerName = `${'x'.repeat(200)}${EVIL}`;
  const text = shown(model);
  fits(text, 'a long name');
  assert.is(text.split('x').length - 1 >= 200, true);
});

test('a wide terminal is made use of', async () => {
  const model = goldenInput('pipeline/adds');
  model.producerName = 'word '.repeat(200);
  const narrow = shown(model);
  const wide = await onTerminal({ columns: 100 }, async () => shown(model));
  fits(wide, '100 columns', 100);
  assert.ok(wide.split('\n').length < narrow.split('\n').length);
});

test('JSON lists every layer', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'in.onnx');
    await saveModel(goldenInput('pipeline/adds'), path);
    for (const file of [TALES12, path]) {
      const { stdout } = await runCli('inspect', file, '--json');
      const { layers } = JSON.parse(stdout) as Inspection;
      assert.ok(layers.length > 1);
      assert.equal(
        layers.map(({ index }) => index),
        layers.map((_, i) => i),
      );
    }
  }));

test('a data file that is not there is said: the layers are shown all the same', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'in.onnx');
    await saveModel(openModel(TALES12), path, { external: true });
    assert.not.match((await runCli('inspect', path)).stdout, /is not there/);
    rmSync(`${path}.data`);
    const { code, stdout } = await runCli('inspect', path);
    assert.is(code, 0);
    assert.match(stdout, /^its data file in\.onnx\.data is not there$/m);
    assert.match(stdout, /^0-11 +decomposed/m);
  }));

test.run();
