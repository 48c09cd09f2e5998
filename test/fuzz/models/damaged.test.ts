/** Models whose parts contradict each other, which brought the code down once, through all that models go through. */
import * as assert from 'uvu/assert';
import { referenceBytes } from '../../../ir/disk/model.js';
import { parseModel } from '../../../ir/text/index.js';
import { concatFfn, factsOf, shardTensorParallel } from '../../../passes/index.js';
import { suite } from '../../helpers/suite.js';
import { childrenOf, encodeMessage, type Message, parseMessage } from '../wire.js';
import { checkModel } from './check.js';
import { edited, remarksOf, resultOf } from './golden-input.js';

const test = suite('damaged models that were found');

test('a negative type of an attribute is malformed, the largest one is read back', () => {
  const text =
    '<\n  ir_version: 8,\n  opset_import: ["" : 17]\n>\none () => () {\n  = Relu <a: type2147483647 = {}> ()\n}\n';
  const bytes = referenceBytes(parseModel(text), '.');
  assert.is(checkModel(bytes, '.').refused, null);
  const tree = parseMessage(bytes, 'model');
  const [node] = childrenOf(childrenOf(tree, 7)[0] as Message, 1);
  const [attribute] = childrenOf(node as Message, 5);
  for (const field of attribute?.fields ?? []) if (field.number === 20) field.value = 2n ** 64n - 1n;
  assert.is(checkModel(encodeMessage(tree), '.').refused, 'OF_BAD_WIRE');
});

test('of a model without outputs nothing is cut', () => {
  const tensor = (name: string, ...dims: number[]): string =>
    `  float[${dims.join()}] ${name} = {${Array.from({ length: dims.reduce((a, b) => a * b) }, (_, i) => (i % 7) / 8).join(', ')}}`;
  const text = `<
  ir_version: 8,
  opset_import: []
>
"" (ids) => () <
${[tensor('embed', 11, 4), tensor('b_0', 4), tensor('f_0', 4), tensor('w_up_0', 4, 5), tensor('w_down_0', 5, 4), tensor('w_up_1', 4, 6), tensor('w_down_1', 6, 4)].join(',\n')}
> {
  r_0 = Gather (embed, ids)
  n_0 = LayerNormalization (r_0, b_0)
  s_0 = Mul (n_0, f_0)
  up_0 = MatMul (s_0, w_up_0)
  mid_0 = Relu (up_0)
  down_0 = MatMul (mid_0, w_down_0)
  r_1 = Add (r_0, down_0)
  n_1 = LayerNormalization (r_0)
  s_1 = Mul (n_1)
  up_1 = MatMul (s_1, w_up_1)
  mid_1 = Relu (up_1)
  down_1 = MatMul (mid_1, w_down_1)
  r_2 = Add (r_1, down_1)
}
`;
  assert.is(checkModel(referenceBytes(parseModel(text), '.'), '.').refused, null);
});

test('an operator without an operand that it needs is not followed', () => {
  const golden = 'shard-tensor-parallel/phi3.golden';
  for (const edit of [
    ['gate_0 = Slice (packed_0, zero, from_0, minus_1)', 'gate_0 = Slice (packed_0)'],
    ['sig_0 = Sigmoid (gate_0)', 'sig_0 = Gather (gate_0)'],
    ['down_0 = MatMul (mid_0, layer_0_down)', 'down_0 = Cast <to: int = 1> ()'],
    ['shape_0 = Shape (packed_0)', 'shape_0 = Shape ()'],
  ] as const) {
    const cut = factsOf(resultOf(edited(golden, edit), 'shard-tensor-parallel{ranks=2}'), shardTensorParallel);
    const reasons = cut
      .flatMap(({ branches }) => branches)
      .filter(({ layer, role }) => layer === '0' && role === 'ffn');
    assert.ok(
      reasons.every(({ reason }) => reason !== null),
      edit[1],
    );
  }
});

test('an attention that takes neither queries nor packed projections is not followed', () => {
  const bytes = edited('concat-attention/packed.golden', ['(qkvb_1, "", "",', '("", "", qkvb_1,']);
  const cut = factsOf(resultOf(bytes, 'shard-tensor-parallel{ranks=2}'), shardTensorParallel);
  const [reason] = cut.flatMap(({ branches }) => branches.filter(({ layer }) => layer === '1'));
  assert.match(reason?.reason ?? '', /has no operand 0/);
});

test('an activation of nothing is none', () => {
  const bytes = edited('shard-tensor-parallel/phi3.golden', ['Sigmoid (gate_0)', 'QuickGelu ()']);
  resultOf(bytes, 'parallelize-ffn{keep-last=0},concat-ffn');
});

test('attentions whose output projections give other numbers of channels do not become one', () => {
  const bytes = edited('remove-attention/decomposed.golden', ['(mixed_1, layer_1_o)', '(mixed_1, layer_0_up)']);
  const said = remarksOf(bytes, 'parallelize-blocks{windows=0-1},concat-attention');
  assert.ok(
    said.some((remark) => remark.includes('one gives 4 channels and one 6')),
    said.join('\n'),
  );
});

test('blocks of another type than bytes, and zero points that are not those of the blocks, are not read', () => {
  const golden = 'concat-ffn/quantised.golden';
  for (const edit of [
    ['uint8[16,2,8] layer_1_down =', 'int8[16,2,8] layer_1_down ='],
    ['(mid_1, layer_1_down, layer_1_down_scale)', '(mid_1, layer_1_down, layer_1_down_scale, layer_0_norm)'],
  ] as const) {
    const bytes = edited(golden, edit);
    assert.equal(factsOf(resultOf(bytes, 'parallelize-ffn{keep-last=0},concat-ffn'), concatFfn), []);
  }
});

test('an attention with another product behind its projection is not cut', () => {
  const golden = 'shard-tensor-parallel/group-query.golden';
  for (const [first, last, reason] of [
    ['layer_0_q', 'layer_0_o', "'mix_0', inside layer 0, is read where its heads are not followed"],
    ['layer_0_k', 'layer_0_v', 'what its last projection reads does not divide among 2 ranks'],
  ]) {
    const more = [
      `  wide_0 = MatMul (attn_0, ${first})`,
      '  act_0 = Relu (wide_0)',
      `  more_0 = MatMul (act_0, ${last})`,
    ];
    const bytes = edited(golden, ['  s_0 = Add (r_0, attn_0)', [...more, '  s_0 = Add (r_0, more_0)'].join('\n')]);
    const remarks = remarksOf(bytes, 'shard-tensor-parallel{ranks=2 rank=1 collectives=none}');
    assert.ok(remarks.includes(`missed its attention is replicated: ${reason}`), remarks.join('\n'));
  }
});

test('a skip norm has no fifth result', () => {
  const bytes = edited('shard-tensor-parallel/skip-norms.golden', ['  n_0, "", "", s_0 =', '  n_0, "", "", "", s_0 =']);
  checkModel(bytes, '.');
  assert.match(remarksOf(bytes, 'remove-attention{layers=0-3 keep-going}').join(), /refused/);
});

test('an attention whose result its own layer reads elsewhere stays', () => {
  const bytes = edited('shard-tensor-parallel/skip-norms.golden', [
    'sig_2 = Sigmoid (gate_2)',
    'sig_2 = Sigmoid (attn_2)',
  ]);
  const remarks = remarksOf(bytes, 'remove-attention{layers=0-3 keep-going}').join('\n');
  assert.match(remarks, /attention cannot be removed: layer 2 uses its result again \(Sigmoid/);
});

test('a shape of numbers that are no sizes is not written down', () => {
  for (const target of ['{0.5, 0.75, -1}', '{-3, 2, -1}']) {
    const type = target.includes('.') ? 'float' : 'int64';
    const bytes = edited(
      'shard-tensor-parallel/skip-norms.golden',
      ['  float[8,11] head', `  ${type}[3] target = ${target},\n  float[8,11] head`],
      ['  up_1 = MatMul (n_1,', '  turned_1 = Reshape (n_1, target)\n  up_1 = MatMul (turned_1,'],
      ['  gate_1 = MatMul (n_1,', '  gate_1 = MatMul (turned_1,'],
    );
    checkModel(bytes, '.');
  }
});

test('a version that was too low and still is, for another reason, is no fault of a pass', () => {
  const bytes = edited(
    'concat-ffn/biases.golden',
    ['ir_version: 8', 'ir_version: 0'],
    [') => (float[B,S,11] logits)', ') => ()'],
  );
  assert.is(checkModel(bytes, '.').refused, null);
});

test('scales that do not fit the integers are not cut', () => {
  const golden = 'concat-ffn/dequantised-scale-per-output.golden';
  for (const [from, to] of [
    ['(layer_0_up, layer_0_up_scale)', '(layer_0_up, layer_1_up_scale)'],
    ['(layer_0_up, layer_0_up_scale)', '(layer_0_up, layer_0_up_scale, layer_1_down_scale)'],
    ['(layer_0_up, layer_0_up_scale)', '(layer_0_up, layer_0_up_scale, layer_0_gate_scale)'],
    ['<axis: int = 1> (layer_0_up,', '<axis: int = 1, block_size: int = 2> (layer_0_up,'],
  ] as const) {
    // What cannot be cut every rank computes whole.
    resultOf(edited(golden, [from, to]), 'shard-tensor-parallel{ranks=2}');
  }
});

test.run();
