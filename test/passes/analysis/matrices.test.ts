/** Forms of quantised matrices that no CPU kernel of onnxruntime runs: what concat-ffn makes of them, tensor by tensor. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type Model, printModel } from '../../../ir/index.js';
import { parsePipeline, registry, runPipeline } from '../../../passes/index.js';
import { parseGolden } from '../../helpers/golden.js';
import { goldenModel } from '../../helpers/golden-check.js';
import { GOLDEN_ROOT } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';

const test = suite('quantised matrices');

/** The input of a golden of concat-ffn as a model, its text changed; fails when what is changed is not there. */
function changed(name: string, changes: readonly (readonly [from: RegExp, to: string])[]): Model {
  const path = join(GOLDEN_ROOT, 'concat-ffn', `${name}.golden`);
  let text = parseGolden(readFileSync(path, 'utf8'), path).input;
  for (const [from, to] of changes) {
    assert.match(text, from);
    text = text.replaceAll(new RegExp(from, 'g'), to);
  }
  return goldenModel(text);
}

const fuse = (model: Model) => runPipeline(model, parsePipeline('concat-ffn', registry));

test('NVFP4: blocks of 4-bit floats and their 8-bit scales are stacked, each keeps the factor of its tensor', () => {
  const model = changed('dequantised-two-levels', [
    [/"" : 21/, '"" : 23'],
    [/ {2}int4\[/, '  float4e2m1['],
    [/ {2}uint8\[/, '  float8e4m3fn['],
  ]);
  const { remarks } = fuse(model);
  assert.is(remarks.filter(({ kind }) => kind === 'passed').length, 1);
  const text = printModel(model);
  for (const line of [
    'float[3] "fused.layers.0-1.ffn.down.weight_scale_scale" = ["expr": "concat(0, float[1]{0.0078125}, float[2]{0.0078125, 0.0078125})"',
    'float8e4m3fn[3,16] "fused.layers.0-1.ffn.down.weight_scale_quantized" = ["expr": "concat(0, float8e4m3fn[1,16]@random.u8+2080, float8e4m3fn[2,16]@random.u8+2160)"',
    'float4e2m1[48,16] "fused.layers.0-1.ffn.down.weight_quantized" = ["expr": "concat(0, float4e2m1[16,16]@random.u8+256, float4e2m1[32,16]@random.u8+896)"',
  ]) {
    assert.ok(text.includes(line), `${line}\n${text}`);
  }
});

for (const layout of [1, 2]) {
  test(`a weight in the tiles of a CUDA kernel is neither joined nor cut: weight_prepacked = ${layout}`, () => {
    const model = changed('quantised', [
      [/block_size: int = /, `weight_prepacked: int = ${layout}, block_size: int = `],
    ]);
    const before = printModel(model);
    const { remarks, changed: isChanged } = fuse(model);
    assert.is(isChanged, false);
    assert.is(printModel(model), before);
    const [missed] = remarks.filter(({ kind }) => kind === 'missed');
    assert.match(missed?.message ?? '', new RegExp(`tiles of a CUDA kernel \\(weight_prepacked = ${layout}\\)`));
  });
}

test('a weight_prepacked of 0 is a plain weight', () => {
  const model = changed('quantised', [[/block_size: int = /, 'weight_prepacked: int = 0, block_size: int = ']]);
  assert.is(fuse(model).changed, true);
});

test.run();
