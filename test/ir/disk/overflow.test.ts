/** OF_WEIGHT_OVERFLOW says which computation gave a number that is too large, and of what. */
import * as assert from 'uvu/assert';
import { storeFloats } from '../../../ir/disk/kernels/kernel.js';
import { evaluate } from '../../../ir/disk/tile.js';
import {
  add,
  cast,
  contract,
  type DataType,
  elementCount,
  inlineWeight,
  requantize,
  scale,
  type Weight,
} from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';

const test = suite('ir/disk overflow');

function tensor(dtype: DataType, dims: readonly number[], values: readonly number[]): Weight {
  const bytes = new Uint8Array(elementCount(dims) * (dtype === 'float' ? 4 : 2));
  storeFloats(dtype, Float64Array.from(values), 0, values.length, bytes, 0);
  return inlineWeight(bytes, dtype, dims);
}

const half = (dims: readonly number[], ...values: readonly number[]): Weight => tensor('float16', dims, values);

/** One row of 16 numbers of 4 bits, all of them 0: -8 times the scale. */
const quantised = {
  blocks: inlineWeight(new Uint8Array(8), 'uint8', [1, 1, 8]),
  scales: half([1, 1], 60000),
  zeroPoints: null,
  bits: 4,
};

const NORM = 'or do not fold norms into weights (option norm)';
const cases: [op: string, weight: Weight, says: string][] = [
  [
    'scale',
    scale(half([2], 1, 60000), 0, half([2], 1, 2)),
    `multiplying it by a vector gives a number too large for float16: 60000 times 2; leave the layers of this weight as they are, ${NORM}`,
  ],
  [
    'contract',
    contract(half([2, 2], 1, 60000, 1, 60000), half([2], 1, 1)),
    `multiplying a vector by it gives a number too large for float16: 120000 in column 1; leave the layers of this weight as they are, ${NORM}`,
  ],
  [
    'add',
    add([half([1], 60000), half([1], 60000), half([1], 1)]),
    'adding it up gives a number too large for float16: 120001, of 3 tensors; leave the layers of this weight as they are',
  ],
  [
    'cast',
    cast(tensor('float', [2], [1, -70000]), 'float16'),
    'converting it gives a number too large for float16: -70000, which is float; leave the layers of this weight as they are',
  ],
  [
    'requantize',
    requantize('scales', quantised, half([16], ...new Array<number>(16).fill(2))),
    'quantising it again gives a number too large for float16: the scale 120000 of a block in row 0; leave the layers' +
      ' of this weight as they are, or do not quantise again (without option requantize)',
  ],
];
for (const [op, weight, says] of cases) {
  test(`${op} says what was computed, of what, and what to do instead`, () => {
    assert.is(weight.op, op);
    let message = 'nothing was thrown';
    try {
      evaluate(weight, 'gate');
    } catch (error) {
      message = (error as Error).message;
    }
    assert.is(message, `OF_WEIGHT_OVERFLOW weight 'gate': ${says}`);
  });
}

test('what is no number before is none of our making', () => {
  const infinite = tensor('float', [1], [Number.POSITIVE_INFINITY]);
  assert.equal([...evaluate(cast(infinite, 'float16'))], [0x00, 0x7c]);
});

test.run();
