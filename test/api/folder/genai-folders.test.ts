/** Folders of onnxruntime-genai that lose attentions, whole: model, caches and config. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { parseModel, saveModel } from '../../../ir/index.js';
import { hashOf, normal } from '../../../runtime/run/random.js';
import { writeGenaiFolder } from '../../helpers/small-decoder.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';
import { checkCombinedCaches, checkFolder, layersToRemove } from './genai-folder-check.js';

const genai = suite('genai folders');

for (const form of ['skip', 'decomposed'] as const) {
  for (const naming of ['preserve', 'compact'] as const) {
    genai(`${form} decoder, --kv-naming ${naming}: caches and configs agree, and the algebra holds`, () =>
      inWorkspace(async (folder) => {
        const input = join(folder, 'in');
        const sliding = { window_size: 64, slide_key_value_cache: false, layers: [0, 1, 3] };
        writeGenaiFolder(input, form, { sliding_window: sliding });
        const removed = await layersToRemove(input);
        assert.equal(removed, [0, 2, 3]);
        assert.ok(await checkFolder(input, removed, naming), 'nothing was fused');
      }),
    );
  }
}

/** A tensor in ONNX text, with seeded values. */
function tensor(name: string, ...dims: number[]): string {
  const count = dims.reduce((product, dim) => product * dim, 1);
  const values = Array.from({ length: count }, (_, i) => (0.5 * normal(hashOf(name), i)).toFixed(4));
  return `float[${dims}] ${name} = {${values}}`;
}

/** A decoder with an Attention operator in each layer, whose keys and values lie in one cache. */
function combined(layers: number): string {
  const each = (text: (layer: number) => string, separator = ', ') =>
    Array.from({ length: layers }, (_, layer) => text(layer)).join(separator);
  const norm = (input: string, output: string) =>
    `${output} = SimplifiedLayerNormalization <axis: int = -1> (${input}, gamma)`;
  return `<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (int64[B,S] ids, ${each((i) => `float[2,B,2,P,4] past_${i}`)})
      => (float[B,S,11] logits, ${each((i) => `float[2,B,2,T,4] present_${i}`)}) <
      ${tensor('embed', 11, 8)}, float[8] gamma = {1, 1, 1, 1, 1, 1, 1, 1}, ${tensor('head', 8, 11)},
      ${each((i) => `${tensor(`qkv_${i}`, 8, 24)}, ${tensor(`bias_${i}`, 24)}, ${tensor(`out_${i}`, 8, 8)}, ${tensor(`up_${i}`, 8, 6)}, ${tensor(`down_${i}`, 6, 8)}`)}
    > {
      r_0 = Gather (embed, ids)
      ${each(
        (i) => `${norm(`r_${i}`, `n_${i}`)}
        mix_${i}, present_${i} = com.microsoft.Attention <num_heads: int = 2, unidirectional: int = 1> (n_${i}, qkv_${i}, bias_${i}, "", past_${i})
        attn_${i} = MatMul (mix_${i}, out_${i})
        s_${i} = Add (r_${i}, attn_${i})
        ${norm(`s_${i}`, `m_${i}`)}
        wide_${i} = MatMul (m_${i}, up_${i})
        mid_${i} = Relu (wide_${i})
        ffn_${i} = MatMul (mid_${i}, down_${i})
        r_${i + 1} = Add (s_${i}, ffn_${i})`,
        '\n',
      )}
      logits = MatMul (r_${layers}, head)
    }`;
}

genai('a folder of combined caches (GPT-2) is counted from 0 without being asked', () =>
  inWorkspace(async (folder) => {
    const model = join(folder, 'model', 'past.onnx');
    mkdirSync(join(folder, 'model'));
    await saveModel(parseModel(combined(4)), model);
    await checkCombinedCaches(model, 4, [1, 2]);
  }),
);

genai.run();
