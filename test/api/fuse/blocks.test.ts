/** Whole blocks of models of our own, made parallel and merged: caches, forms, and what goes together. */
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type Model, openModel } from '../../../ir/index.js';
import { concatAttention, concatFfn, factsOf } from '../../../passes/index.js';
import { TALES12 } from '../../helpers/paths.js';
import { writeGenaiFolder, writeSmallDecoder } from '../../helpers/small-decoder.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';
import { decoderOf } from '../folder/genai-folder-check.js';
import { attentions, checkWindow, fuseWindow } from './block-window.js';

const blocks = suite('whole blocks');

blocks('the blocks of a window become one', () => checkWindow(TALES12, '5-8', '4+4+4+4'));

for (const form of ['skip', 'adds', 'decomposed'] as const) {
  blocks(`the blocks of a window become one in a decoder of the form ${form}`, () =>
    inWorkspace((folder) => checkWindow(writeSmallDecoder(folder, form), '1-4', '4+4+4+4')),
  );
}

blocks('separate caches leave the interface as it was', () =>
  inWorkspace(async (folder) => {
    const input = writeSmallDecoder(folder);
    const flags = ['--parallelize-blocks', '0-1,2-4', '--kv-caches', 'separate'];
    const [report, after] = await fuseWindow(folder, input, ...flags);
    const before = openModel(input);
    assert.ok(report.checks.algebra?.pass);
    assert.is(factsOf(report, concatAttention).length, 2);
    assert.is(attentions(after), attentions(before) - 3);
    const names = (model: Model) => [...model.graph.inputs, ...model.graph.outputs].map(({ name }) => name).join();
    assert.is(names(after), names(before));
  }),
);

blocks('a folder for onnxruntime-genai keeps a cache for every layer of its config', () =>
  inWorkspace(async (folder) => {
    const [input, output] = [join(folder, 'in'), join(folder, 'out')];
    writeGenaiFolder(input);
    const { code, stderr } = await runCli(input, output, '--parallelize-blocks', '1-3', '--quiet');
    assert.is(code, 0, stderr);
    const pasts = openModel(join(output, 'model.onnx')).graph.inputs.filter(({ name }) => name.endsWith('.key'));
    assert.is(pasts.length, decoderOf(output).num_hidden_layers);
  }),
);

blocks('in the literal form nothing merges, and every attention says why', () =>
  inWorkspace(async (folder) => {
    const input = writeSmallDecoder(folder);
    const flags = ['--parallelize-blocks', '1-4', '--block-form', 'literal'];
    const [report, after] = await fuseWindow(folder, input, ...flags);
    assert.ok(report.checks.algebra?.pass);
    assert.equal([factsOf(report, concatAttention), factsOf(report, concatFfn)], [[], []]);
    assert.is(attentions(after), 5);
    for (const layer of ['1', '2', '3']) {
      assert.match(report.left.find((left) => left.layer === layer)?.reason ?? '', 'is read by itself');
    }
  }),
);

blocks('windows, removed attention and runs work together', () =>
  inWorkspace(async (folder) => {
    const input = writeSmallDecoder(folder);
    const flags = ['--remove-attention', '0-1', '--keep-last', '0', '--parallelize-blocks', '2-4'];
    const [report, after] = await fuseWindow(folder, input, ...flags, '--kv-naming', 'compact');
    assert.ok(report.checks.algebra?.pass);
    assert.equal(
      factsOf(report, concatFfn).map(({ layers }) => layers.join()),
      ['0,1', '2,3,4'],
    );
    const pasts = after.graph.inputs.filter(({ name }) => /past/.test(name)).map(({ name }) => name);
    assert.equal(pasts, ['past_key_values.0.key', 'past_key_values.0.value']);
  }),
);

blocks('a window that cannot be is refused with the layer and the reason', async () => {
  for (const [window, complaint] of [
    ['10-13', /OF_NO_SUCH_LAYER layer 12/],
    ['3', /a run needs two layers at least/],
  ] as const) {
    const { code, stderr } = await runCli(TALES12, '/nowhere/out.onnx', '--parallelize-blocks', window);
    assert.is(code, 2);
    assert.match(stderr, complaint);
  }
});

blocks.run();
