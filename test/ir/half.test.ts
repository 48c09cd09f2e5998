/** The 16-bit types, one number at a time, against an implementation of others. */
import { f16round, getFloat16 } from '@petamoriken/float16';
import * as fc from 'fast-check';
import * as assert from 'uvu/assert';
import { fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from '../../ir/half.js';
import { suite } from '../helpers/suite.js';

const test = suite('half');

test('every float16 is the number that others read, and comes back', () => {
  const view = new DataView(new ArrayBuffer(2));
  for (let bits = 0; bits < 65536; bits++) {
    view.setUint16(0, bits);
    const value = fromFloat16Bits(bits);
    if (!Object.is(value, getFloat16(view, 0))) assert.unreachable(`0x${bits.toString(16)} is read as ${value}`);
    if (!Number.isNaN(value) && toFloat16Bits(value) !== bits) assert.unreachable(`${value} does not come back`);
  }
});

test('every bfloat16 comes back', () => {
  for (let bits = 0; bits < 65536; bits++) {
    const value = fromBfloat16Bits(bits);
    if (!Number.isNaN(value) && toBfloat16Bits(value) !== bits) assert.unreachable(`${value} does not come back`);
  }
  assert.is(fromBfloat16Bits(0x3fc0), 1.5);
});

test('numbers are rounded to float16 as others round them', () => {
  fc.assert(
    fc.property(fc.double({ min: -70000, max: 70000, noNaN: true }), (value) =>
      Object.is(fromFloat16Bits(toFloat16Bits(value)), f16round(value)),
    ),
  );
});

test.run();
