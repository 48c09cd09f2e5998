/** Cases: layer numbers are the model's, and no branch joins a layer that it does not belong to. */
import * as assert from 'uvu/assert';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';
import {
  assertRefused,
  caseFile,
  type Fused,
  fuseCase,
  fusedRuns,
  inspectCase,
  mustFuse,
  removedFrom,
} from './cases.js';

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

/** The layers of each run that became one. */
function runsOf({ report }: Fused): string[] {
  return fusedRuns(report as NonNullable<typeof report>).map((layers) => layers.join());
}

test('nas/deci_mixed: blocks without attention or FFN keep the numbers of the names', async () => {
  assert.equal(await layersOf(MIXED), [
    [0, true, true],
    [1, true, false],
    [2, false, true],
    [3, false, true],
  ]);
  await inWorkspace(async (folder) => {
    assertRefused(
      await fuseCase(folder, MIXED, '--remove-ffn', '1'),
      /layer 1: its FFN cannot be removed: it has none/,
    );
    const fused = await fuseCase(folder, MIXED, '--remove-ffn', '2');
    assert.is(fused.code, 0);
    assert.equal(removedFrom(fused, 'ffn'), [2]);
    const both = await mustFuse(folder, MIXED, 1, '--remove-attention', '1', '--runs', '2-3');
    assert.equal(runsOf(both), ['2,3']);
  });
});

test('nas/deci_linear: a linear in the place of an attention is a branch of its block', async () => {
  const { layers } = await inspectCase(LINEAR);
  assert.equal(
    layers.map(({ index }) => index),
    [0, 1, 2, 3],
  );
  assert.is(layers[1]?.attention.present, false);
  assert.equal(
    layers.map(({ linears }) => linears.map(({ slot }) => slot).join()),
    ['', 'attention', '', ''],
  );
  await inWorkspace(async (folder) => {
    // The numbers are those of the names: it is the last block, and no other, whose attention is in the way.
    assertRefused(await fuseCase(folder, LINEAR, '--runs', '2-3'), /layer 3: .*its attention stays/);
    await mustFuse(folder, LINEAR, 1, '--remove-attention', '3', '--runs', '2-3');
    const removed = await fuseCase(folder, LINEAR, '--remove-attention', '3');
    assert.is(removed.code, 0, removed.stderr);
    assert.equal(removedFrom(removed, 'attention'), [3]);
  });
});

test('nas/nemotron_h: attention and MLP are blocks of their own', async () => {
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

test('falcon-h1: attention and Mamba on one sum are one layer with the FFN after them', async () => {
  const model = file('falcon-h1', 'falcon_h1-tf5-ts17.onnx');
  const whole = [0, 1, 2, 3].map((index) => [index, true, true]);
  assert.equal(await layersOf(model), whole);
  await inWorkspace(async (folder) => {
    const fused = await fuseCase(folder, model, '--remove-attention', '1-2');
    assert.is(fused.code, 0, fused.stderr);
    assert.equal(removedFrom(fused, 'attention'), [1, 2]);
    assert.equal(
      await layersOf(fused.output),
      whole.map(([index, , ffn]) => [index, index === 0 || index === 3, ffn]),
    );
  });
});

for (const [name, path] of [
  ['whisper', 'whisper/decoder_model.onnx'],
  ['whisper with caches', 'whisper/decoder_with_past_model.onnx'],
  ['whisper merged', 'whisper/decoder_model_merged.onnx'],
  ['t5', 't5/t5dec-tf5-ts17.onnx'],
] as const) {
  test(`${name}: self attention, cross attention and FFN are one layer`, async () => {
    const shown = async (model: string) =>
      (await inspectCase(model)).layers.map(({ index, attention, ffn, others }) => [
        index,
        ...(attention.present ? ['self attention'] : []),
        ...others.map(({ kind }) => kind),
        ...(ffn.present ? ['FFN'] : []),
      ]);
    const whole = ['self attention', 'cross attention', 'FFN'];
    assert.equal(
      await shown(file(path)),
      [0, 1, 2, 3].map((index) => [index, ...whole]),
    );
    await inWorkspace(async (folder) => {
      const fused = await fuseCase(folder, file(path), '--remove-attention', '2');
      assert.is(fused.code, 0, fused.stderr);
      assert.equal(removedFrom(fused, 'attention'), [2]);
      assert.equal(
        await shown(fused.output),
        [0, 1, 2, 3].map((index) => [index, ...whole.slice(Number(index === 2))]),
      );
    });
  });
}

for (const name of ['glm', 'granite']) {
  test(`optimum-fp16/${name}: a Cast that widens the stream is no border`, async () => {
    const model = file('optimum-fp16', `${name}.onnx`);
    assert.ok((await layersOf(model)).every(([, attention]) => attention));
    await inWorkspace(async (folder) => {
      assert.equal(runsOf(await mustFuse(folder, model, 1, '--remove-attention', '1-2', ...SOON)), ['1,2']);
    });
  });
}

test('kv-reuse: all layers are listed, and what reads the keys again is named', async () => {
  const model = file('kv-reuse', 'model.onnx');
  assert.equal(
    (await layersOf(model)).map(([index]) => index),
    [0, 1, 2, 3, 4],
  );
  await inWorkspace(async (folder) => {
    assertRefused(await fuseCase(folder, model, '--remove-attention', '2'), /layer 2.*layer 4/);
  });
});

test('wrong_layer_5555: an FFN that was not recognised is not taken for that of another layer', () =>
  inWorkspace(async (folder) => {
    assertRefused(
      await fuseCase(folder, file('wrong_layer_5555.onnx'), '--remove-ffn', '0'),
      /layer 0: its FFN cannot/,
    );
  }));

test('gpt_neox_japanese: a sum with an expanded bias is no post-norm', () =>
  inWorkspace(async (folder) => {
    const model = file('gpt_neox_japanese-tf5-ts17.onnx');
    const fused = await fuseCase(folder, model, '--remove-attention', '2-3');
    assert.is(fused.code, 0, fused.stderr);
    assert.equal(removedFrom(fused, 'attention'), [2, 3]);
  }));

test('hunyuan-tf5-ts17-qop: attentions of quantised operators are removed', () =>
  inWorkspace(async (folder) => {
    const fused = await fuseCase(folder, file('hunyuan-tf5-ts17-qop.onnx'), '--remove-attention', '1-2');
    assert.is(fused.code, 0, fused.stderr);
    assert.equal(removedFrom(fused, 'attention'), [1, 2]);
    // All that was not fused says why.
    assert.equal(
      fused.report?.left.map(({ layer }) => layer),
      ['0', '1', '2', '3'],
    );
  }));

test.run();
