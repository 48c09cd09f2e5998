/** Models that onnxruntime loaded and did not load any more after a pipeline: golden inputs with the one change that matters. */
import * as assert from 'uvu/assert';
import { openModelBytes, referenceBytes } from '../../../ir/disk/model.js';
import { parsePipeline, registry, runPipeline } from '../../../passes/index.js';
import { openSession } from '../../../runtime/index.js';
import { suite } from '../../helpers/suite.js';
import { runModel } from './case.js';
import { edited } from './golden-input.js';
import { Ort } from './ort.js';

const test = suite('models that were found and onnxruntime');

/** onnxruntime loads the model before and after. */
async function loadsStill(bytes: Uint8Array, pipeline: string): Promise<void> {
  const load = async (file: Uint8Array): Promise<void> => {
    const session = await openSession({ bytes: file, folder: '.' }, { optimization: 'disabled', threads: 1 });
    await session.release();
  };
  await load(bytes);
  const model = openModelBytes(bytes, '.');
  const { changed } = runPipeline(model, parsePipeline(pipeline, registry));
  assert.ok(changed, `${pipeline} changed nothing`);
  await load(referenceBytes(model, '.'));
}

test('an initializer has the type that it holds, whatever is declared', () =>
  loadsStill(
    edited('instrument/widened-stream.golden', ['(float[B,S,11] logits)', '(float[B,S,11] logits, float[] embed)']),
    'instrument',
  ));

test('a norm gives the type of its scale, not that of the stream', () =>
  loadsStill(
    edited(
      'instrument/widened-stream.golden',
      ['  n_1 = ', '  narrow = Cast <to: int = 10> (s_1)\n  n_1 = '],
      ['(s_1, layer_1_norm)', '(narrow, layer_1_norm)'],
    ),
    'instrument',
  ));

test('the second operand of a product of blocks, bytes, does not tell its type', () =>
  loadsStill(
    edited(
      'concat-ffn/quantised.golden',
      ['  float[16,11] head', '  bool yes = {1},\n  float[16,11] head'],
      ['(n_1, layer_1_up, ', '(any, layer_1_up, '],
      [
        '  up_1 = ',
        [
          '  any = If (yes) <',
          '    then_branch: graph = one () => (float[] one_1) { one_1 = Identity (n_1) },',
          '    else_branch: graph = two () => (float[] two_1) { two_1 = Identity (n_1) }',
          '  >',
          '  up_1 = ',
        ].join('\n'),
      ],
    ),
    'shard-tensor-parallel{ranks=2 rank=1 collectives=none}',
  ));

test('gates stand before the node that holds what reads them', () =>
  loadsStill(
    edited(
      'instrument/bias-inside-skip-norm.golden',
      ['  float[4,11] head', '  bool yes = {1},\n  float[4,11] head'],
      [
        '  up_1 = MatMul (n_1, layer_1_up)',
        [
          '  nobody = If (yes) <',
          '    then_branch: graph = one () => (float[] one_1) { one_1 = MatMul (n_1, layer_1_up) },',
          '    else_branch: graph = two () => (float[] two_1) { two_1 = MatMul (n_1, layer_1_up) }',
          '  >',
          '  up_1 = MatMul (n_1, layer_1_up)',
        ].join('\n'),
      ],
    ),
    'instrument',
  ));

test('the bias that a skip norm adds has the gate of one term of its sum', () =>
  loadsStill(
    edited('instrument/bias-inside-skip-norm.golden', [
      '  n_final = com.microsoft.SkipLayerNormalization <epsilon: float = 0.00001> (r_1, down_1,',
      [
        '  sum = Add (r_1, down_1)',
        '  other = MatMul (mid_1, layer_1_down)',
        '  n_final = com.microsoft.SkipLayerNormalization <epsilon: float = 0.00001> (sum, other,',
      ].join('\n'),
    ]),
    'instrument',
  ));

for (const [golden, pipeline] of [
  ['shard-tensor-parallel/group-query.golden', 'shard-tensor-parallel{ranks=2 rank=1 collectives=none}'],
  ['concat-attention/group-query.golden', 'concat-attention'],
] as const) {
  test(`what reads heads for nobody goes: ${pipeline}`, () =>
    loadsStill(edited(golden, ['  attn_0 = ', '  nobody = MatMul (mix_0, layer_0_o)\n  attn_0 = ']), pipeline));
}

test('functions stay that graphs inside an If call', () =>
  loadsStill(
    edited(
      'inline-functions/layers.golden',
      ['  float[4,11] head', '  bool yes = {1},\n  float[4,11] head'],
      [
        '  [layer_1] r_2 = pkg.model.Layer <eps: float = 0.001> (r_1, layer_1_norm, layer_1_up, layer_1_down)',
        [
          '  r_2 = If (yes) <',
          '    then_branch: graph = one () => (float[] one_2) {',
          '      one_2 = pkg.model.Layer <eps: float = 0.001> (r_1, layer_1_norm, layer_1_up, layer_1_down)',
          '    },',
          '    else_branch: graph = two () => (float[] two_2) { two_2 = Identity (r_1) }',
          '  >',
        ].join('\n'),
      ],
    ),
    'inline-functions',
  ));

test('without an import of the standard operators they are the newest', () =>
  loadsStill(edited('concat-attention/packed.golden', ['"" : 17, ', '']), 'concat-attention{caches=separate}'));

test('a shape that the file states and that cannot be is not stated any more', () =>
  loadsStill(
    edited('concat-ffn/recorded-shapes.golden', ['float[B,S,6] gate_0', 'float[B,S] gate_0']),
    'shard-tensor-parallel{ranks=2 rank=1 collectives=none}',
  ));

test('integers with one scale are dequantised without an axis, which is newer than they may be', () =>
  loadsStill(
    edited('concat-ffn/dequantised-tensor.golden', ['"" : 17', '"" : 12']),
    'shard-tensor-parallel{ranks=2 rank=1 collectives=none}',
  ));

test('Gemm keeps a bias of zeros where it cannot do without one', () =>
  loadsStill(
    edited('concat-ffn/gemm-biases.golden', ['"" : 17', '"" : 10']),
    'shard-tensor-parallel{ranks=2 rank=1 collectives=none}',
  ));

test('integers with one scale each are not joined where DequantizeLinear has no axis', () => {
  const model = openModelBytes(edited('concat-ffn/dequantised-tensor.golden', ['"" : 17', '"" : 12']), '.');
  const { changed, remarks } = runPipeline(model, parsePipeline('concat-ffn', registry));
  assert.not.ok(changed);
  assert.match(remarks.map(({ message }) => message).join(), /more only from version 13/);
});

test('what the ranks have together has a shape: onnxruntime takes queries beside values of none for packed ones', () =>
  loadsStill(
    edited('shard-tensor-parallel/skip-norms.golden', ['v_1 = MatMul (na_1, ', 'v_1 = MatMul (down_0, ']),
    'shard-tensor-parallel{ranks=2 rank=1 collectives=none}',
  ));

/** What was never a model, though onnxruntime loads it. */
const NO_MODELS: readonly [string, Uint8Array][] = [
  ['of which a node fails', edited('remove-attention/skip-norm.golden', ['(s_0, down_0, ', '(s_0, mid_0, '])],
  [
    'whose output has another size than it states',
    edited('parallelize-ffn/cannot-become-one.golden', [
      'float[B,S,11] logits)',
      'float[B,S,11] logits, float[B,S,24] r_3)',
    ]),
  ],
];

for (const [what, bytes] of NO_MODELS) {
  test(`a model ${what} when it is run says nothing about what was made of it`, async () => {
    const ort = new Ort(() => {});
    try {
      // On a busy machine an answer may come too late.
      let counts: Record<string, number> = { unloadable: 1 };
      for (let i = 0; i < 5 && counts['unloadable']; i++) counts = await runModel(bytes, '.', ort);
      assert.ok((counts['contradictory'] ?? 0) > 0, JSON.stringify(counts));
    } finally {
      ort.close();
    }
  });
}

test.run();
