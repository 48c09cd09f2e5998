/** Models that brought the code down once: golden inputs with the one change that matters, through all that models go through. */
import * as assert from 'uvu/assert';
import type { Value } from '../../../ir/core.js';
import { openModelBytes, referenceBytes } from '../../../ir/disk/model.js';
import { parseModel } from '../../../ir/text/index.js';
import { verifyModel } from '../../../ir/verify.js';
import { inferElementTypes } from '../../../passes/analysis/values/element-types.js';
import {
  concatFfn,
  factsOf,
  parsePipeline,
  registry,
  removeAttention,
  runPipeline,
  shardTensorParallel,
} from '../../../passes/index.js';
import { suite } from '../../helpers/suite.js';
import { childrenOf, encodeMessage, integerField, messageField, parseMessage, textField } from '../wire.js';
import { checkModel } from './check.js';
import { edited, remarksOf, resultOf } from './golden-input.js';

const test = suite('models that were found');

/** The caches that went with the attention of layer 1. */
function cachesGone(bytes: Uint8Array): readonly string[] {
  const removed = factsOf(resultOf(bytes, 'remove-attention{layers=1}'), removeAttention);
  return removed.flatMap(({ kvInputs }) => kvInputs);
}

test('nodes that read a cache and that nobody reads go with the attention', () => {
  const bytes = edited('remove-attention/decomposed.golden', [
    '  scores_1 = MatMul (qt_1, keys_1)',
    '  nobody = Transpose <perm: ints = [0, 1, 3, 2]> (present_1_key)\n  scores_1 = MatMul (qt_1, keys_1)',
  ]);
  assert.equal(cachesGone(bytes), ['past_1_key', 'past_1_value']);
});

test('a cache input with an initializer goes with the last node that reads it', () => {
  const bytes = edited(
    'remove-attention/opset-23.golden',
    ['  attn_1 = MatMul (mix_1, layer_1_o)', '  nobody = Neg (past_1_key)\n  attn_1 = MatMul (mix_1, layer_1_o)'],
    ['  float[4] layer_0_attn_norm', '  float[1,2,1,2] past_1_key = {1, 2, 3, 4},\n  float[4] layer_0_attn_norm'],
    ['  float[B,2,P,2] past_1_key,', '  float[1,2,1,2] past_1_key,'],
  );
  assert.equal(cachesGone(bytes), ['past_1_key', 'past_1_value']);
});

test('a norm that an FFN shares does not go with its attention, nor what it reads', () => {
  const bytes = edited('remove-attention/parallel-block.golden', ['(r_1, layer_1_norm)', '(r_1, mix_0)']);
  assert.throws(() => resultOf(bytes, 'remove-attention{layers=0-1}'), /mix_0/);
});

test('an element type that an attribute names and that is none is not written into the types of values', () => {
  const bytes = edited('instrument/widened-stream.golden', ['to: int = 1>', 'to: int = -1>']);
  resultOf(bytes, 'instrument');
  const huge = edited('instrument/widened-stream.golden', ['to: int = 1>', 'to: int = 4294967297>']);
  resultOf(huge, 'instrument');
});

test('an attention that reads what else a skip norm gives is not put before the FFN that the norm adds', () => {
  const bytes = edited(
    'remove-attention/skip-norm.golden',
    ['  na_1, "", "", r_1', '  na_1, "", deviation, r_1'],
    ['  attn_1 = MatMul (mix_1, ', '  scaled_1 = Mul (mix_1, deviation)\n  attn_1 = MatMul (scaled_1, '],
  );
  assert.throws(() => resultOf(bytes, 'parallelize-blocks{windows=0-1}'), /its attention needs 'deviation'/);
  checkModel(bytes, '.');
});

test('what a skip norm adds stays where its deviation is read, too', () => {
  for (const [norm, pipeline] of [
    ['n_1', 'remove-attention{layers=1}'],
    ['na_2', 'remove-ffn{layers=1}'],
  ]) {
    const bytes = edited(
      'remove-attention/skip-norm.golden',
      ['  float[B,S,11] logits,', '  float[B,S,11] logits,\n  float[] deviation,'],
      [`  ${norm}, "", "",`, `  ${norm}, "", deviation,`],
    );
    checkModel(bytes, '.');
    const steps = parsePipeline(pipeline as string, registry);
    assert.throws(() => runPipeline(openModelBytes(bytes, '.'), steps), /mean or deviation/);
  }
});

test('what reads a cache for nobody goes with it, and what makes an output of it keeps it', () => {
  const golden = 'remove-attention/decomposed.golden';
  const read = ['  r_0 = Gather', '  size = Shape (past_1_key)\n  half = Slice (size)\n  r_0 = Gather'] as const;
  const unread = edited(golden, read);
  const removed = factsOf(resultOf(unread, 'remove-attention{layers=0-1}'), removeAttention);
  assert.equal(
    removed.map(({ layer }) => layer),
    [0, 1],
  );
  for (const name of ['half', 'past_1_key']) {
    const given = edited(golden, read, ['  float[B,S,11] logits,', `  float[B,S,11] logits,\n  float[] ${name},`]);
    assert.throws(() => resultOf(given, 'remove-attention{layers=0-1}'), /OF_CANNOT_REMOVE layer 1: .*'past_1_key' is/);
  }
});

test('an attention whose result an FFN reads, too, stays', () => {
  const bytes = edited('remove-attention/decomposed.golden', ['mid_1 = Relu (up_1)', 'mid_1 = Sum (up_1, attn_0)']);
  assert.throws(() => resultOf(bytes, 'remove-attention{layers=0}'), /layer 1 uses its result again/);
  const own = edited('remove-attention/decomposed.golden', ['mid_1 = Relu (up_1)', 'mid_1 = Sum (up_1, attn_1)']);
  assert.throws(() => resultOf(own, 'remove-attention{layers=1}'), /layer 1 uses its result again/);
});

test('blocks are not moved whose norms take their weights from the stream', () => {
  const bytes = edited('remove-attention/skip-norm.golden', ['(s_0, down_0, layer_1_attn_norm)', '(s_0, down_0, n_0)']);
  assert.throws(() => resultOf(bytes, 'parallelize-blocks{windows=0-1}'), /OF_CANNOT_FUSE layer 0: .*weights from/);
});

test('a number that something unread reads, too, becomes no vector', () => {
  const bytes = edited('concat-ffn/numbers-computed.golden', [
    '  mid_0 = Mul',
    '  nobody = Mul (relu_0, soft_0)\n  mid_0 = Mul',
  ]);
  assert.equal(factsOf(resultOf(bytes, 'concat-ffn'), concatFfn), []);
});

test('a norm that computes in a narrower type is not like one behind a Cast to that type', () => {
  const bytes = edited(
    'concat-ffn/rounded-norm-near-miss.golden',
    ['  n_0 = ', '  h_0 = Cast <to: int = 10> (r_0)\n  n_0 = '],
    ['(r_0, gamma_0)', '(h_0, gamma_0)'],
  );
  assert.equal(factsOf(resultOf(bytes, 'concat-ffn'), concatFfn), []);
});

test('an If without branches is no merged decoder', () => {
  const text = '<\n  ir_version: 8,\n  opset_import: ["" : 17]\n>\nempty () => () {\n  = If ()\n}\n';
  const bytes = referenceBytes(parseModel(text), '.');
  assert.is(checkModel(bytes, '.').refused, null);
});

test('what a node came with does not count as a violation of the pass that copies it', () => {
  const bytes = edited('shard-tensor-parallel/packed.golden');
  const tree = parseMessage(bytes, 'model');
  const [graph] = childrenOf(tree, 7);
  for (const node of graph ? childrenOf(graph, 1) : []) {
    node.fields.push(messageField(5, { kind: 'attribute', fields: [integerField(20, 2), integerField(3, 1)] }));
  }
  const nameless = encodeMessage(tree);
  const [first] = verifyModel(openModelBytes(nameless, '.'));
  assert.match(first as string, /an attribute has no name/);
  const cut = factsOf(resultOf(nameless, 'shard-tensor-parallel{ranks=2 collectives=none}'), shardTensorParallel);
  assert.ok(cut.flatMap(({ branches }) => branches).some(({ reason }) => reason === null));
});

test('what an If inside an attention gives is no output of the decoder', () => {
  const bytes = edited(
    'remove-attention/decomposed.golden',
    ['  float[4,11] head', '  bool yes = {1},\n  float[4,11] head'],
    [
      '  k_1 = MatMul (na_1, layer_1_k)',
      [
        '  k_1 = If (yes) <',
        '    then_branch: graph = one () => (float[] one_1) { one_1 = MatMul (na_1, layer_1_k) },',
        '    else_branch: graph = two () => (float[] two_1) { two_1 = MatMul (na_1, layer_1_k) }',
        '  >',
      ].join('\n'),
    ],
  );
  assert.equal(cachesGone(bytes), ['past_1_key', 'past_1_value']);
});

test('a cache that two attentions read goes with them once', () => {
  const bytes = edited('remove-attention/decomposed.golden', [
    '  k_1 = MatMul (na_1, layer_1_k)',
    '  size = Shape (layer_1_k)\n  same_k = Reshape (layer_1_k, size)\n  k_1 = MatMul (na_1, same_k)',
  ]);
  const twice = edited('remove-attention/decomposed.golden', [
    '  k_1 = MatMul (na_1, layer_1_k)',
    '  same_k = Reshape (layer_1_k, present_0_key)\n  k_1 = MatMul (na_1, same_k)',
  ]);
  for (const each of [bytes, twice]) {
    const removed = factsOf(resultOf(each, 'remove-attention{layers=0-1}'), removeAttention);
    assert.equal(
      removed.map(({ layer }) => layer),
      [0, 1],
    );
  }
});

test('what is multiplied by a weight has its type where the Reshape before it tells none', () => {
  const bytes = edited(
    'remove-attention/decomposed.golden',
    ['  float[4,11] head', '  bool yes = {1},\n  float[4,11] head'],
    [
      '  mixed_1 = Reshape (mixt_1, flat)',
      [
        '  any_1 = If (yes) <',
        '    then_branch: graph = one () => (float[] one_1) { one_1 = Identity (mixt_1) },',
        '    else_branch: graph = two () => (float[] two_1) { two_1 = Identity (mixt_1) }',
        '  >',
        '  mixed_1 = Reshape (any_1, flat)',
      ].join('\n'),
    ],
  );
  checkModel(bytes, '.');
  const { graph } = openModelBytes(bytes, '.');
  const types = inferElementTypes(graph);
  assert.is(types.get(graph.value('mixed_1') as Value), undefined);
  assert.is(types.get(graph.value('attn_1') as Value), 'float');
});

test('a sum that takes up one branch twice is not cut and not fused', () => {
  const bytes = edited('remove-attention/decomposed.golden', [
    'r_2 = Add (s_1, down_1)',
    'r_2 = Sum (s_1, down_1, down_1)',
  ]);
  const result = resultOf(bytes, 'shard-tensor-parallel{ranks=2 lm-head=replicate}');
  const cut = factsOf(result, shardTensorParallel).flatMap(({ branches }) => branches);
  assert.equal(
    cut.filter(({ reason }) => reason === null).map(({ layer, role }) => `${layer} ${role}`),
    ['0 attention', '0 ffn', '1 attention'],
  );
});

test('what two layers add is cut once, and annotated once', () => {
  const bytes = edited('concat-ffn/biases.golden', ['(down_1, layer_1_down_bias)', '(down_0, layer_1_down_bias)']);
  const cut = factsOf(resultOf(bytes, 'shard-tensor-parallel{ranks=2}'), shardTensorParallel);
  assert.equal(
    cut.flatMap(({ branches }) => branches.map(({ reason }) => reason)),
    [null, 'it is computed in layer 0, and cut there', null],
  );
  const [step] = resultOf(bytes, 'annotate-tensor-parallel{ranks=2}').steps;
  assert.is(step?.statistics['projections'], 6);
});

test('a negative element type is malformed', () => {
  const tree = parseMessage(edited('drop-dead/dead-branch.golden'), 'model');
  const [graph] = childrenOf(tree, 7);
  graph?.fields.push(messageField(5, { kind: 'tensor', fields: [integerField(2, -1), textField(8, 'x')] }));
  assert.is(checkModel(encodeMessage(tree), '.').refused, 'OF_BAD_WIRE');
});

test('a skip norm takes over a norm whose scale stands behind an Identity further down', () => {
  const bytes = edited(
    'remove-attention/skip-norm.golden',
    ['  n_1, "", ""', '  late = Identity (layer_1_norm)\n  n_1, "", ""'],
    ['(r_1, attn_1, layer_1_norm)', '(r_1, attn_1, late)'],
  );
  assert.equal(cachesGone(bytes), ['past_1_key', 'past_1_value']);
});

test('an If that gives fewer results than its branches holds no decoder', () => {
  const bytes = edited(
    'pipeline/merged-decoder.golden',
    [', present_1_value = If', ' = If'],
    [',\n  float[B,1,T,4] present_1_value\n) <', '\n) <'],
  );
  assert.throws(() => remarksOf(bytes, 'remove-attention{layers=1}'), /OF_NO_SUCH_LAYER/);
});

test('a cache that an If gives stays where something else reads it', () => {
  const bytes = edited(
    'pipeline/merged-decoder.golden',
    ['  float[B,1,T,4] present_1_value\n) <', '  float[B,1,T,4] present_1_value,\n  float[B,1,T,4] copy\n) <'],
    ['\n  >\n}', '\n  >\n  copy = Identity (present_1_value)\n}'],
  );
  assert.throws(
    () => remarksOf(bytes, 'remove-attention{layers=1}'),
    /OF_CANNOT_REMOVE layer 1: .*'present_1_value' is also read by Identity, which stays/,
  );
});

test('a decoder inside an If gets no gates', () => {
  const bytes = edited('pipeline/merged-decoder.golden');
  assert.equal(remarksOf(bytes, 'instrument'), ['missed no gates: the decoder lies inside an If']);
});

test('caches keep their numbers where something else has the name', () => {
  const bytes = edited('rename-kv/compact.golden', ['int64[B,S] ids', 'int64[B,S] ids,\n  float[2] past_1_key']);
  const said = remarksOf(bytes, 'rename-kv{naming=compact}');
  assert.equal(said, ["missed the caches keep their names: something else is called 'past_1_key'"]);
});

test('what an If inside a branch reads is not moved', () => {
  const bytes = edited(
    'parallelize-blocks/adds.golden',
    ['  float[8,11] head', '  bool yes = {1},\n  float[8,11] head'],
    [
      '  attn_1 = MatMul (mix_1, layer_1_o)',
      [
        '  inner_1 = If (yes) <',
        '    then_branch: graph = one () => (float[] one_1) { one_1 = Identity (mix_1) },',
        '    else_branch: graph = two () => (float[] two_1) { two_1 = Identity (mix_1) }',
        '  >',
        '  attn_1 = MatMul (inner_1, layer_1_o)',
      ].join('\n'),
    ],
  );
  assert.throws(
    () => remarksOf(bytes, 'parallelize-blocks{windows=0-1}'),
    /OF_CANNOT_FUSE layer 1: .*what graphs inside If/,
  );
});

test('without outputs nothing is dead', () => {
  const bytes = edited('drop-dead/dead-branch.golden', [' => (float[B,S,11] logits)', ' => ()']);
  assert.match(remarksOf(bytes, 'drop-dead').join('\n'), /^missed the graph has no outputs/);
});

test('a field of a model that should be a message and is a number is malformed', () => {
  const tree = parseMessage(edited('drop-dead/dead-branch.golden'), 'model');
  tree.fields.push(integerField(7, 1));
  assert.is(checkModel(encodeMessage(tree), '.').refused, 'OF_BAD_WIRE');
});

test('the type of what an unknown operator gives is a guess, and another operand of its sum knows better', () => {
  const golden = 'instrument/widened-stream.golden';
  const bytes = edited(
    golden,
    ['"" : 17', '"" : 17, "own" : 1'],
    ['w_0 = Cast <to: int = 1> (r_0)', 'w_0 = own.Widen (r_0)'],
  );
  const { graph } = openModelBytes(bytes, '.');
  const types = inferElementTypes(graph);
  assert.is(types.get(graph.value('w_0') as Value), 'float16');
  assert.is(types.get(graph.value('s_0') as Value), 'float');
  resultOf(bytes, 'instrument');
});

test('an attention stays whose keys, cache and all, somebody asks for their size', () => {
  const bytes = edited(
    'concat-attention/decomposed.golden',
    ['  float[B,S,11] logits,', '  int64[] length,\n  float[B,S,11] logits,'],
    ['  s_0 = Add (', '  length = Shape (present_1_key)\n  s_0 = Add ('],
  );
  const [remark] = remarksOf(bytes, 'remove-attention{layers=1 keep-going}');
  assert.match(remark ?? '', /refused its attention cannot be removed: 'past_1_key' is also read by Shape/);
});

test('where each keeps its norm, an activation inside of a product and one behind it are not put side by side', () => {
  const bytes = edited(
    'concat-ffn/fused-gemm.golden',
    ['(float[B,S,11] logits)', '(float[B,S,11] logits, float[] seen)'],
    ['  down_0 = Gemm', '  seen = Relu (n_0)\n  down_0 = Gemm'],
  );
  const remarks = remarksOf(bytes, 'concat-ffn').join('\n');
  assert.match(remarks, /missed .*one has its activation inside of the operator that multiplies/);
});

test.run();
