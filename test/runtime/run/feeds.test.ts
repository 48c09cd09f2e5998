import * as assert from 'uvu/assert';
import type { DataType, Dim } from '../../../ir/type.js';
import { makeFeeds } from '../../../runtime/run/feeds.js';
import type { HostTensor, TensorMap } from '../../../runtime/session/tensor.js';
import type { InputRole } from '../../../runtime/signature/roles.js';
import { readSignature, type Signature } from '../../../runtime/signature/signature.js';
import { suite } from '../../helpers/suite.js';
import { HEAD_SIZE, tinyDecoder, VOCABULARY } from '../../helpers/tiny-decoder.js';

const test = suite('runtime: feeds');

/** A signature of tokens [b, s] and the inputs given. */
function signatureOf(inputs: Record<string, [InputRole, DataType, Dim[] | null]>): Signature {
  const all = { ids: ['tokens', 'int64', ['b', 's']] as [InputRole, DataType, Dim[]], ...inputs };
  const infos = Object.entries(all).map(([name, [role, dtype, shape]]) => ({ name, role, dtype, shape }));
  return {
    inputs: infos,
    outputs: [],
    caches: [],
    driver: infos[0] ?? null,
    logits: null,
    vocabulary: 50,
    batch: null,
    sequence: null,
    positions: null,
    past: null,
    weightBytes: 0,
    claim: null,
  };
}

const values = (tensor: HostTensor | undefined): number[] => [...(tensor?.data ?? [])].map(Number);
const failure = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return (error as Error).message;
  }
  return '';
};

test('a prefill has empty caches and consistent lengths', () => {
  const { tensors, pastLength } = makeFeeds(readSignature(tinyDecoder()), { batch: 2, tokens: 5 });
  assert.is(pastLength, 0);
  assert.equal(tensors.get('x0')?.dims, [2, 5]);
  assert.equal(tensors.get('x1')?.dims, [2, 2, 0, HEAD_SIZE]);
  assert.equal(values(tensors.get('x3')), [4, 4]);
  assert.equal(values(tensors.get('x4')), [5]);
});

test('tokens lie within the vocabulary, differ between rows and depend on the seed alone', () => {
  const signature = readSignature(tinyDecoder());
  const ids = (seed: number) => makeFeeds(signature, { batch: 2, tokens: 40, seed }).tokenIds;
  assert.ok(
    ids(1)
      .flat()
      .every((id) => id >= 0 && id < VOCABULARY),
  );
  assert.equal(ids(1), ids(1));
  assert.not.equal(ids(1), ids(2));
  assert.not.equal(ids(1)[0], ids(1)[1]);
  assert.ok(new Set(ids(1)[0]).size > 10);
});

test('a decode step continues the caches of the run before', () => {
  const present: HostTensor = { dtype: 'float', dims: [1, 2, 5, HEAD_SIZE], data: new Float32Array(10 * HEAD_SIZE) };
  const past: TensorMap = new Map([
    ['y1', present],
    ['y2', present],
  ]);
  const { tensors, pastLength } = makeFeeds(readSignature(tinyDecoder()), { tokenIds: [[3]], past });
  assert.is(pastLength, 5);
  assert.is(tensors.get('x1'), present);
  assert.equal(values(tensors.get('x3')), [5]);
  assert.equal(values(tensors.get('x4')), [6]);
});

test('positions, masks and flags of a step agree with its past', () => {
  const signature = signatureOf({
    mask: ['mask', 'int64', ['b', 't']],
    short: ['mask', 'float', ['b', 's']],
    fixed: ['mask', 'int32', ['b', 8]],
    bias: ['bias', 'float', ['b', 1, 's', 't']],
    allowed: ['bias', 'bool', ['b', 1, 's', 't']],
    place: ['positions', 'int64', [3, 'b', 's']],
    flag: ['use-cache', 'bool', [1]],
    done: ['past-length', 'int64', []],
    kinds: ['segments', 'int64', ['b', 's']],
  });
  const { tensors } = makeFeeds(signature, { tokenIds: [[7, 8]], pastLength: 3 });
  assert.equal(values(tensors.get('mask')), [1, 1, 1, 1, 1]);
  assert.equal(values(tensors.get('short')), [1, 1]);
  assert.equal(values(tensors.get('fixed')), [1, 1, 1, 1, 1, 0, 0, 0]);
  assert.equal(values(tensors.get('allowed')), [1, 1, 1, 1, 0, 1, 1, 1, 1, 1]);
  const bias = values(tensors.get('bias'));
  assert.ok(bias[4]! < -1e38 && Number.isFinite(bias[4]!));
  assert.equal([...bias.slice(0, 4), ...bias.slice(5)], new Array(9).fill(0));
  assert.equal(
    [tensors.get('place')?.dims, values(tensors.get('place'))],
    [
      [3, 1, 2],
      [3, 4, 3, 4, 3, 4],
    ],
  );
  assert.equal([values(tensors.get('flag')), values(tensors.get('done'))], [[1], [3]]);
  assert.equal(values(tensors.get('kinds')), [0, 0]);
});

test('the vector of a token is the same at every position', () => {
  const signature = signatureOf({ h: ['embeddings', 'float', ['b', 's', 4]] });
  const all = values(makeFeeds(signature, { tokenIds: [[5, 6, 5]] }).tensors.get('h'));
  const last = values(makeFeeds(signature, { tokenIds: [[6]], pastLength: 2 }).tensors.get('h'));
  assert.equal(all.slice(0, 4), all.slice(8));
  assert.equal(all.slice(4, 8), last);
  assert.not.equal(all.slice(0, 4), last);
});

test('inputs of unknown purpose get seeded values and are reported', () => {
  const signature = signatureOf({ noise: ['float', 'float16', [2, 3]], step: ['index', 'int64', []] });
  const feeds = makeFeeds(signature, { tokens: 2 });
  assert.equal(feeds.assumed, ['noise', 'step']);
  assert.ok(feeds.tensors.get('noise')?.data instanceof Uint16Array);
  assert.equal(values(feeds.tensors.get('step')), [0]);
});

test('what cannot be fed is an error that names the input and the reason', () => {
  const of = (input: [InputRole, DataType, Dim[] | null]) =>
    failure(() => makeFeeds(signatureOf({ odd: input }), { tokens: 2 }));
  assert.match(
    of(['float', 'float', ['b', 'mystery']]),
    "graph input 'odd': no value can be made for it: nothing tells the size of its dimension 1 (mystery)",
  );
  assert.match(of(['float', 'float', null]), 'does not tell its shape');
  assert.match(of(['float', 'bfloat16', [2]]), 'bfloat16 cannot be passed');
  assert.match(of(['unknown', 'int64', [2]]), 'what it is for cannot be told');
});

test('fixed dimensions are honoured, and a request against them refused', () => {
  const signature = readSignature(tinyDecoder({ batch: 2, sequence: 4 }));
  assert.equal(makeFeeds(signature).tensors.get('x0')?.dims, [2, 4]);
  assert.match(
    failure(() => makeFeeds(signature, { batch: 1 })),
    'its batch is fixed at 2, not 1',
  );
  assert.match(
    failure(() => makeFeeds(signature, { tokens: 5 })),
    'it takes 4 tokens at a time, not 5',
  );
});

test('a cache without a known size is refused', () => {
  const signature = readSignature(tinyDecoder());
  const caches = signature.caches.map((port) => ({ ...port, dims: [null, 2, null, null] }));
  assert.match(
    failure(() => makeFeeds({ ...signature, caches })),
    'dimension 3 (d)',
  );
});

test.run();
