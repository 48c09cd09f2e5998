/** Layers chosen by files of other tools. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { parseLayerChoice, readLayers } from '../../../api/fuse/layer-choice.js';
import { TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const choice = suite('layer choice');

const described = (attention: number[], ffn: number[]) => ({ attention, ffn, describesModel: true });
const read = (value: unknown) => parseLayerChoice(JSON.stringify(value), 'choice.json');

choice('LLM-Drop lists, in any order, as numbers or as one flag for each layer', () => {
  const dropped = (attention: number[] | null, ffn: number[] | null) => ({ attention, ffn, describesModel: false });
  assert.equal(read({ drop_attn_list: [26, 24, 25, 24], drop_mlp_list: [] }), dropped([24, 25, 26], []));
  assert.equal(read({ drop_attn_list: [false, true, true] }), dropped([1, 2], null));
  assert.equal(read({ drop_mlp_list: [3] }), dropped(null, [3]));
});

choice('block_configs of Nemotron and ModelOpt', () => {
  const blocks = [
    { attention: { no_op: false, n_heads_in_group: 8 }, ffn: { no_op: false, ffn_mult: 5.25 } },
    { attention: { no_op: true, n_heads_in_group: null }, ffn: { no_op: false, ffn_mult: 2.625 } },
    { attention: { no_op: true }, ffn: { no_op: true } },
    { attention: {}, mlp: { no_op: true } },
  ];
  assert.equal(read({ model_type: 'nemotron-nas', block_configs: blocks }), described([1, 2], [2, 3]));
});

choice('per_layer_config of Hugging Face, also inside text_config', () => {
  const layers = { '02': { skip: ['attention', 'mlp'] }, '10': { intermediate_size: 8 }, '7': { skip: ['attention'] } };
  assert.equal(read({ per_layer_config: layers }), described([2, 7], [2]));
  assert.equal(read({ model_type: 'x', text_config: { per_layer_config: layers } }), described([2, 7], [2]));
});

choice('what onnx-fuse wrote itself counts before its block_configs', () => {
  const own = { removed_attention: [4], removed_ffn: [] };
  assert.equal(read({ block_configs: [{ parallel_blocks: [] }], onnx_fuse: own }), described([4], []));
});

choice('errors name the file, the key and what is accepted', () => {
  const refused: [unknown, RegExp][] = [
    [
      { hidden_size: 4, model_type: 'llama' },
      /choice\.json: it chooses no layers: its keys are hidden_size, model_type/,
    ],
    [{}, /it is empty/],
    [[1, 2], /holds no object/],
    [{ drop_attn_list: '1-3' }, /drop_attn_list: expected layer numbers.*found "1-3"/],
    [{ drop_attn_list: [1, -2] }, /found -2/],
    [{ drop_mlp_list: [true, 1] }, /found true/],
    [{ block_configs: {} }, /block_configs: expected a list/],
    [{ block_configs: [{ attention: { no_op: true } }] }, /block_configs\[0\]: expected an object under 'ffn'/],
    [{ block_configs: [{ attention: { replace_with_linear: true }, ffn: {} }] }, /attention\.replace_with_linear/],
    [{ block_configs: [{ attention: null, ffn: null, parallel_blocks: [] }] }, /parallel_blocks/],
    [{ per_layer_config: { x: {} } }, /per_layer_config\.x: expected a layer number/],
    [{ per_layer_config: { '1': { skip: 'mlp' } } }, /skip: expected a list/],
    [{ per_layer_config: { '1': { skip: ['mixer'] } } }, /"mixer" cannot be removed/],
  ];
  for (const [value, why] of refused) {
    assert.throws(
      () => read(value),
      (error: Error) => /^OF_USAGE choice\.json/.test(error.message) && why.test(error.message),
      JSON.stringify(value),
    );
  }
});

choice('a flag takes numbers, or a file that says something about it', () =>
  inWorkspace((folder) => {
    const layersFor = (part: 'attention' | 'ffn', text: string) => readLayers(part, text, `option remove-${part}`);
    assert.equal(layersFor('attention', '4-7, 12'), [4, 5, 6, 7, 12]);
    assert.equal(layersFor('ffn', 'none'), []);
    assert.throws(() => layersFor('attention', '3-'), /OF_USAGE option remove-attention: expected layer numbers.*'3-'/);
    const file = join(folder, 'drop.json');
    writeFileSync(file, JSON.stringify({ drop_attn_list: [3, 4, 5, 9] }));
    assert.equal(layersFor('attention', file), [3, 4, 5, 9]);
    assert.throws(() => layersFor('ffn', file), /says nothing about FFNs, which option remove-ffn asks it for/);
    assert.throws(() => layersFor('attention', join(folder, 'gone.json')), /neither layer numbers nor a file/);
    writeFileSync(file, JSON.stringify({ drop_attn_list: [], drop_mlp_list: [] }));
    assert.equal(layersFor('attention', file), []);
    // A description of a whole model may be of this very one: what has gone from it already is no mistake.
    writeFileSync(file, JSON.stringify({ block_configs: [{ attention: { no_op: true }, ffn: {} }] }));
    assert.equal(layersFor('attention', file), { ifThere: [0] });
  }),
);

choice('the command removes what the file says, attention and FFNs', () =>
  inWorkspace(async (folder) => {
    const [file, list, byFile] = ['drop.json', 'list.onnx', 'file.onnx'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    writeFileSync(file, JSON.stringify({ drop_attn_list: [4, 3], drop_mlp_list: [7] }));
    const common = ['--no-verify', '--quiet'];
    assert.is((await runCli(TALES12, list, '--remove-attention', '3-4', '--remove-ffn', '7', ...common)).code, 0);
    assert.is((await runCli(TALES12, byFile, '--remove-attention', file, '--remove-ffn', file, ...common)).code, 0);
    assert.is((await runCli('verify', list, byFile, '--tolerance', '0', '--quiet')).code, 0);
    const wrong = await runCli(TALES12, byFile, '--remove-attention', TALES12, ...common);
    assert.is(wrong.code, 2);
    assert.match(wrong.stderr, /is not JSON/);
  }),
);

choice.run();
