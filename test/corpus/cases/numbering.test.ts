/** Cases: layer numbers are the model's, and no branch joins a layer that it does not belong to. */
import * as assert from 'uvu/assert';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';
import { assertRefused, caseFile, fuseCase, inspectCase, mustFuse, removedFrom } from './cases.js';

const test = suite('cases: numbering');
const file = (...path: string[]) => caseFile('numbering', ...path);
const MIXED = file('nas', 'deci_mixed-tf5-ts17.onnx');
const LINEAR = file('nas', 'deci_linear-tf5-ts17.onnx');
const HYBRID = file('nas', 'nemotron_h-tf5-ts17.onnx');
const SOON = ['--keep-last', '0'];

/** `layer: attention, FFN` of an inspection. */
async function layersOf(model: string) {
  return (await inspectCase(model)).layers.map(({ index, attention, ffn }) => [index, attention.present, ffn.present]);
}

test('blocks without attention or FFN keep the numbers of the names', async () => {
  assert.equal(await layersOf(MIXED), [
    [0, true, true],
    [1, true, false],
    [2, false, true],
    [3, false, true],
  ]);
  await inWorkspace(async (folder) => {
    assertRefused(await fuseCase(folder, MIXED, '--remove-ffn', '1'), /layer 1.*FFN/);
    const fused = await fuseCase(folder, MIXED, '--remove-ffn', '2');
    assert.is(fused.code, 0);
    assert.equal(removedFrom(fused, 'ffn'), [2]);
    await mustFuse(folder, MIXED, 1, '--remove-attention', '1', '--runs', '2-3');
  });
});

test('a linear in the place of an attention is a branch of its block', async () => {
  const { layers } = await inspectCase(LINEAR);
  assert.equal(
    layers.map(({ index }) => index),
    [0, 1, 2, 3],
  );
  assert.is(layers[1]?.attention.present, false);
  await inWorkspace(async (folder) => {
    const removed = await fuseCase(folder, LINEAR, '--remove-attention', '3');
    assert.is(removed.code, 0, removed.stderr);
    assert.equal(removedFrom(removed, 'attention'), [3]);
  });
});

test('attention and MLP as blocks of their own', async () => {
  assert.equal(await layersOf(HYBRID), [
    [0, true, false],
    [1, false, true],
    [2, true, false],
    [3, false, true],
  ]);
  await inWorkspace(async (folder) => {
    const fused = await fuseCase(folder, HYBRID, '--remove-ffn', '3');
    assert.is(fused.code, 0, fused.stderr);
    assert.equal(removedFrom(fused, 'ffn'), [3]);
  });
});

test('attention and Mamba on one sum are one layer', async () => {
  const model = file('falcon-h1', 'falcon_h1-tf5-ts17.onnx');
  assert.equal(
    (await layersOf(model)).map(([index]) => index),
    [0, 1, 2, 3],
  );
  await inWorkspace(async (folder) => {
    const fused = await fuseCase(folder, model, '--remove-attention', '1-2');
    assert.is(fused.code, 0, fused.stderr);
    assert.equal(removedFrom(fused, 'attention'), [1, 2]);
  });
});

for (const [name, path, count] of [
  ['whisper', ['whisper', 'decoder_model.onnx'], 4],
  ['T5', ['t5', 't5dec-tf5-ts17.onnx'], 4],
] as const) {
  test(`cross attention belongs to its layer: ${name}`, async () => {
    const layers = await layersOf(file(...path));
    assert.is(layers.length, count);
    assert.ok(layers.every(([, attention, ffn]) => attention && ffn));
    await inWorkspace(async (folder) => {
      const fused = await fuseCase(folder, file(...path), '--remove-attention', '2');
      if (fused.code === 0) assert.equal(removedFrom(fused, 'attention'), [2]);
      else assertRefused(fused, /layer 2/);
    });
  });
}

for (const name of ['glm', 'granite']) {
  test(`a Cast that widens the stream is no border: ${name}`, async () => {
    const model = file('optimum-fp16', `${name}.onnx`);
    assert.ok((await layersOf(model)).every(([, attention]) => attention));
    await inWorkspace((folder) => mustFuse(folder, model, 1, '--remove-attention', '1-2', ...SOON));
  });
}

test('keys that a later layer uses again: all layers are listed, and the reader is named', async () => {
  const model = file('kv-reuse', 'model.onnx');
  assert.equal(
    (await layersOf(model)).map(([index]) => index),
    [0, 1, 2, 3, 4],
  );
  await inWorkspace(async (folder) => {
    assertRefused(await fuseCase(folder, model, '--remove-attention', '2'), /layer 2.*layer 4/);
  });
});

test('an FFN that was not recognised is not taken for that of another layer', () =>
  inWorkspace(async (folder) => {
    assertRefused(await fuseCase(folder, file('wrong_layer_5555.onnx'), '--remove-ffn', '0'), /layer 0/);
  }));

test('a sum with an expanded bias is no post-norm', () =>
  inWorkspace(async (folder) => {
    const model = file('gpt_neox_japanese-tf5-ts17.onnx');
    const fused = await fuseCase(folder, model, '--remove-attention', '2-3');
    assert.is(fused.code, 0, fused.stderr);
    assert.is(removedFrom(fused, 'attention').length, 2);
  }));

test('attentions of quantised operators are removed, or a line says why not', () =>
  inWorkspace(async (folder) => {
    const fused = await fuseCase(folder, file('hunyuan-tf5-ts17-qop.onnx'), '--remove-attention', '1-2');
    if (fused.code === 0) assert.is(removedFrom(fused, 'attention').length, 2);
    else assertRefused(fused, /layer 1/);
  }));

test.run();
