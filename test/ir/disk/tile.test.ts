import { f16round } from '@petamoriken/float16';
import fc from 'fast-check';
import * as assert from 'uvu/assert';
import { loadFloats, overflowOf, storeFloats } from '../../../ir/disk/kernels/kernel.js';
import { evaluate, type Tile, WeightReader } from '../../../ir/disk/tile.js';
import { toBfloat16Bits, toFloat16Bits } from '../../../ir/half.js';
import {
  add,
  type BlockPart,
  bitsOf,
  cast,
  concat,
  contract,
  type DataType,
  elementCount,
  inlineWeight,
  MemorySource,
  type RequantizeWeight,
  requantize,
  scale,
  slice,
  sourceWeight,
  transpose,
  type Weight,
} from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import { codeOf } from '../proto/fixtures.js';

const test = suite('ir/disk tiles');

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function numbersOf(dtype: DataType, bytes: Uint8Array): number[] {
  const values = new Float64Array((bytes.length * 8) / bitsOf(dtype));
  loadFloats(dtype, viewOf(bytes), 0, values.length, values, 0);
  return [...values];
}

/** The elements of a weight as opaque texts or numbers, the slow and obvious way. */
function naive(weight: Weight): number[] {
  const { dims, dtype } = weight;
  const at = (index: readonly number[], shape: readonly number[]) =>
    index.reduce((sum, i, axis) => sum * (shape[axis] as number) + i, 0);
  const build = (element: (index: number[]) => number): number[] =>
    Array.from({ length: elementCount(dims) }, (_, flat) => {
      const index: number[] = [];
      for (let axis = dims.length - 1, rest = flat; axis >= 0; axis--) {
        index.unshift(rest % (dims[axis] as number));
        rest = Math.floor(rest / (dims[axis] as number));
      }
      return element(index);
    });
  const round = (value: number): number => {
    const bytes = new Uint8Array(8);
    storeFloats(dtype, Float64Array.of(value), 0, 1, viewOf(bytes), 0);
    return numbersOf(dtype, bytes.subarray(0, bitsOf(dtype) / 8))[0] as number;
  };
  switch (weight.op) {
    case 'inline':
      return elements(weight.bytes, dtype, elementCount(dims));
    case 'source':
      return elements(
        (weight.source as MemorySource).bytes.subarray(weight.offset, weight.offset + weight.byteLength),
        dtype,
        elementCount(dims),
      );
    case 'slice': {
      const operand = naive(weight.operand);
      return build((index) => {
        const moved = index.map((i, axis) => (axis === weight.axis ? i + weight.start : i));
        return operand[at(moved, weight.operand.dims)] as number;
      });
    }
    case 'concat': {
      const parts = weight.parts.map(naive);
      return build((index) => {
        let position = index[weight.axis] as number;
        let part = 0;
        while (position >= (weight.parts[part]?.dims[weight.axis] as number)) {
          position -= weight.parts[part++]?.dims[weight.axis] as number;
        }
        const moved = index.map((i, axis) => (axis === weight.axis ? position : i));
        return parts[part]?.[at(moved, weight.parts[part]?.dims ?? [])] as number;
      });
    }
    case 'transpose': {
      const operand = naive(weight.operand);
      return build(([r = 0, c = 0]) => operand[c * (dims[0] as number) + r] as number);
    }
    case 'scale': {
      const operand = naive(weight.operand);
      const by = naive(weight.by);
      return build((index) =>
        round((operand[at(index, dims)] as number) * (by[index[weight.axis] as number] as number)),
      );
    }
    case 'contract': {
      const operand = naive(weight.operand);
      const by = naive(weight.by);
      const columns = dims[0] as number;
      return build(([column = 0]) =>
        round(by.reduce((sum, factor, row) => sum + factor * (operand[row * columns + column] as number), 0)),
      );
    }
    case 'cast':
      return naive(weight.operand).map(round);
    case 'requantize':
      return naiveRequantized(weight);
    case 'add': {
      const parts = weight.parts.map(naive);
      return build((index) => round(parts.reduce((sum, part) => sum + (part[at(index, dims)] as number), 0)));
    }
  }
}

/** Block by block on lists of levels, as the documentation of MatMulNBits has it. */
function naiveRequantized({ part, matrix, by, dtype }: RequantizeWeight): number[] {
  const { blocks, scales, zeroPoints, bits } = matrix;
  const [rows = 0, count = 0, bytes = 0] = blocks.dims;
  const perByte = 8 / bits;
  const size = bytes * perByte;
  const levelsOf = (values: readonly number[]): number[] =>
    values.flatMap((byte) => Array.from({ length: perByte }, (_, i) => Math.floor(byte / 2 ** (i * bits)) % 2 ** bits));
  const bytesOf = (levels: readonly number[]): number[] =>
    Array.from({ length: Math.ceil(levels.length / perByte) }, (_, i) =>
      levels.slice(i * perByte, (i + 1) * perByte).reduce((sum, level, at) => sum + level * 2 ** (at * bits), 0),
    );
  const round = (value: number): number => {
    const buffer = new Uint8Array(8);
    storeFloats(scales.dtype, Float64Array.of(value), 0, 1, viewOf(buffer), 0);
    return numbersOf(scales.dtype, buffer.subarray(0, bitsOf(scales.dtype) / 8))[0] as number;
  };
  const clamp = (level: number): number => Math.max(0, Math.min(2 ** bits - 1, Math.round(level)));
  const factors = naive(by);
  const oldScales = naive(scales);
  const oldLevels = levelsOf(naive(blocks));
  const stored = zeroPoints ? naive(zeroPoints) : [];
  const isPacked = zeroPoints?.dtype === 'uint8';
  const result: number[] = [];
  for (let row = 0; row < rows; row++) {
    const perRow = stored.length / rows;
    const own = stored.slice(row * perRow, (row + 1) * perRow);
    const zeros = isPacked ? levelsOf(own) : own;
    const newZeros: number[] = [];
    for (let j = 0; j < count; j++) {
      const start = (row * count + j) * size;
      const zero = zeroPoints ? (zeros[j] as number) : 2 ** (bits - 1);
      const values = oldLevels
        .slice(start, start + size)
        .map((level, i) => (level - zero) * (oldScales[row * count + j] as number) * (factors[j * size + i] ?? 0));
      const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
      const extreme = high > -low ? high : low;
      const scale = round(zeroPoints ? (high - low) / (2 ** bits - 1) : extreme / -(2 ** (bits - 1)));
      const newZero = zeroPoints ? (scale === 0 ? 0 : clamp(-low / scale)) : 2 ** (bits - 1);
      newZeros.push(newZero);
      if (part === 'scales') result.push(scale);
      const levels = values.map((value) => (scale === 0 ? newZero : clamp(value / scale + newZero)));
      if (part === 'blocks') result.push(...bytesOf(levels));
    }
    if (part === 'zero_points') result.push(...(isPacked ? bytesOf(newZeros) : newZeros));
  }
  return dtype === 'uint8' ? result : result.map(round);
}

/** Elements as numbers: floating-point ones by value, packed and integer ones by bits. */
function elements(bytes: Uint8Array, dtype: DataType, count: number): number[] {
  const bits = bitsOf(dtype);
  if (bits < 8) {
    return Array.from({ length: count }, (_, i) => {
      return ((bytes[Math.floor((i * bits) / 8)] as number) >> ((i * bits) % 8)) & (2 ** bits - 1);
    });
  }
  if (dtype === 'uint8') return [...bytes];
  return numbersOf(dtype, bytes);
}

interface Shape {
  readonly dims: readonly number[];
  readonly dtype: DataType;
}

/** A weight of this shape: a leaf in memory or in a source, of small numbers that neither overflow nor cancel oddly. */
function leaf({ dims, dtype }: Shape): fc.Arbitrary<Weight> {
  const count = elementCount(dims);
  const values = fc.array(fc.integer({ min: -64, max: 64 }), { minLength: count, maxLength: count });
  return fc.tuple(values, fc.nat({ max: 5 })).map(([numbers, padding]) => {
    const bits = bitsOf(dtype);
    const bytes = new Uint8Array(Math.ceil((count * bits) / 8));
    if (bits < 8) {
      for (const [i, value] of numbers.entries()) {
        const index = Math.floor((i * bits) / 8);
        bytes[index] = (bytes[index] as number) | ((value & (2 ** bits - 1)) << ((i * bits) % 8));
      }
    } else if (dtype === 'uint8') bytes.set(numbers.map((value) => value & 255));
    else
      storeFloats(
        dtype,
        Float64Array.from(numbers, (value) => value / 8),
        0,
        count,
        viewOf(bytes),
        0,
      );
    if (padding === 0) return inlineWeight(bytes, dtype, dims);
    const file = new Uint8Array(bytes.length + 2 * padding).fill(255);
    file.set(bytes, padding);
    return sourceWeight(new MemorySource(file), padding, dtype, dims);
  });
}

/** A weight expression of this shape. */
function expression(shape: Shape, depth: number): fc.Arbitrary<Weight> {
  if (depth === 0) return leaf(shape);
  const { dims, dtype } = shape;
  const axisOf = fc.nat({ max: Math.max(dims.length - 1, 0) });
  const withDim = (axis: number, size: number): Shape => ({
    dtype,
    dims: dims.map((dim, i) => (i === axis ? size : dim)),
  });
  const choices: fc.Arbitrary<Weight>[] = [leaf(shape)];
  if (dims.length > 0) {
    choices.push(
      fc.tuple(axisOf, fc.nat({ max: 3 }), fc.nat({ max: 3 })).chain(([axis, before, after]) => {
        const size = dims[axis] as number;
        const operand = expression(withDim(axis, before + size + after), depth - 1);
        return operand.map((weight) => slice(weight, axis, before, before + size));
      }),
      fc.tuple(axisOf, fc.nat({ max: 100 })).chain(([axis, cut]) => {
        const size = dims[axis] as number;
        const first = size < 2 ? size : 1 + (cut % (size - 1));
        if (first === size) return expression(shape, depth - 1);
        const parts = [expression(withDim(axis, first), depth - 1), expression(withDim(axis, size - first), depth - 1)];
        return fc.tuple(...parts).map((found) => concat(found, axis));
      }),
    );
    if (dtype !== 'uint8' && bitsOf(dtype) >= 8) {
      choices.push(
        axisOf.chain((axis) => {
          const by = expression({ dtype: dtype === 'float16' ? 'float' : dtype, dims: [dims[axis] as number] }, 0);
          return fc.tuple(expression(shape, depth - 1), by).map(([weight, factors]) => scale(weight, axis, factors));
        }),
        fc.tuple(expression(shape, depth - 1), expression(shape, depth - 1)).map((parts) => add(parts)),
        expression({ dims, dtype: dtype === 'bfloat16' ? 'float' : 'bfloat16' }, depth - 1).map((w) => cast(w, dtype)),
      );
      if (dims.length === 1) {
        choices.push(
          fc.nat({ max: 4 }).chain((more) => {
            const rows = more + 1;
            const operand = expression({ dtype, dims: [rows, dims[0] as number] }, depth - 1);
            return fc.tuple(operand, leaf({ dtype, dims: [rows] })).map(([weight, by]) => contract(weight, by));
          }),
        );
      }
    }
  }
  if (dims.length === 2) {
    choices.push(expression({ dtype, dims: [dims[1] as number, dims[0] as number] }, depth - 1).map(transpose));
  }
  return fc.oneof(...choices);
}

/** Parts of requantised matrices, cut by rows and columns; every operand is an expression itself. */
const requantized: fc.Arbitrary<Weight> = fc
  .record({
    bits: fc.constantFrom(2, 4, 8),
    rows: fc.integer({ min: 1, max: 4 }),
    count: fc.integer({ min: 1, max: 5 }),
    bytes: fc.constantFrom(2, 4),
    missing: fc.nat({ max: 3 }),
    dtype: fc.constantFrom<DataType>('float', 'float16'),
    zeros: fc.constantFrom('none', 'packed', 'typed'),
    part: fc.constantFrom<BlockPart>('blocks', 'scales', 'zero_points'),
    cuts: fc.tuple(fc.nat(), fc.nat(), fc.nat()),
  })
  .chain(({ bits, rows, count, bytes, missing, dtype, zeros, part, cuts }) => {
    const zeroShape: Shape =
      zeros === 'packed'
        ? { dtype: 'uint8', dims: [rows, Math.ceil((count * bits) / 8)] }
        : { dtype, dims: [rows, count] };
    const width = Math.max(count * bytes * (8 / bits) - missing, (count - 1) * bytes * (8 / bits) + 1);
    return fc
      .tuple(
        expression({ dtype: 'uint8', dims: [rows, count, bytes] }, 1),
        expression({ dtype, dims: [rows, count] }, 1),
        expression(zeroShape, 1),
        leaf({ dtype: 'float', dims: [width] }),
      )
      .map(([blocks, scales, zeroPoints, by]) => {
        const has = zeros !== 'none';
        const matrix = { blocks, scales, zeroPoints: has ? zeroPoints : null, bits };
        const whole = requantize(part === 'zero_points' && !has ? 'blocks' : part, matrix, by);
        const [axis = 0, a = 0, b = 0] = cuts;
        const along = axis % whole.dims.length;
        const start = a % (whole.dims[along] as number);
        return slice(whole, along, start, start + 1 + (b % ((whole.dims[along] as number) - start)));
      });
  });

const shapes = (dtypes: readonly DataType[]): fc.Arbitrary<Shape> =>
  fc.record({
    dtype: fc.constantFrom(...dtypes),
    dims: fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 0, maxLength: 4 }),
  });
const expressions = (dtypes: readonly DataType[]): fc.Arbitrary<Weight> =>
  shapes(dtypes).chain((shape) => expression(shape, 3));

const anyBytewise = (): fc.Arbitrary<Weight> => fc.oneof({ arbitrary: expressions(BYTEWISE), weight: 4 }, requantized);

const BYTEWISE: readonly DataType[] = ['float', 'float16', 'bfloat16', 'double', 'uint8'];

test('random expressions evaluate to what the definition says', () => {
  fc.assert(
    fc.property(anyBytewise(), (weight) => {
      assert.equal(elements(evaluate(weight), weight.dtype, elementCount(weight.dims)), naive(weight));
    }),
    { seed: 1, numRuns: 1500 },
  );
});

test('random runs of bytes of random expressions are the same as those of the whole', () => {
  const cuts = fc.tuple(fc.nat(), fc.nat());
  fc.assert(
    fc.property(anyBytewise(), cuts, (weight, [a, b]) => {
      const whole = evaluate(weight);
      const width = bitsOf(weight.dtype) / 8;
      const count = elementCount(weight.dims);
      const [first = 0, last = 0] = [a % (count + 1), b % (count + 1)].sort((x, y) => x - y);
      const bytes = new Uint8Array((last - first) * width + 2);
      new WeightReader('').readBytes(weight, first * width, (last - first) * width, bytes, 1);
      assert.equal([...bytes], [0, ...whole.subarray(first * width, last * width), 0]);
    }),
    { seed: 2, numRuns: 1500 },
  );
});

test('random tiles of any view land where they belong and nowhere else', () => {
  const numbers = fc.tuple(fc.nat(), fc.nat(), fc.nat(), fc.nat(), fc.nat(), fc.nat({ max: 9 }));
  fc.assert(
    fc.property(anyBytewise(), numbers, (weight, [s, r0, r1, c0, c1, gap]) => {
      const width = bitsOf(weight.dtype) / 8;
      const split = s % (weight.dims.length + 1);
      const rows = elementCount(weight.dims.slice(0, split));
      const columns = elementCount(weight.dims.slice(split));
      const [row = 0, rowEnd = 0] = [r0 % (rows + 1), r1 % (rows + 1)].sort((x, y) => x - y);
      const [column = 0, columnEnd = 0] = [c0 % (columns + 1), c1 % (columns + 1)].sort((x, y) => x - y);
      const tile: Tile = { split, row, rowEnd, column, columnEnd };
      const stride = (columnEnd - column) * width + gap;
      const bytes = new Uint8Array((rowEnd - row) * stride + 3).fill(0xee);
      new WeightReader('').read(weight, tile, bytes, 3, stride);
      const whole = evaluate(weight);
      const expected = new Uint8Array(bytes.length).fill(0xee);
      for (let r = row; r < rowEnd; r++) {
        const from = (r * columns + column) * width;
        expected.set(whole.subarray(from, from + (columnEnd - column) * width), 3 + (r - row) * stride);
      }
      assert.equal([...bytes], [...expected]);
    }),
    { seed: 3, numRuns: 1500 },
  );
});

test('types of less than a byte can be cut anywhere', () => {
  fc.assert(
    fc.property(expressions(['uint4', 'int4', 'uint2', 'float4e2m1']), (weight) => {
      assert.equal(elements(evaluate(weight), weight.dtype, elementCount(weight.dims)), naive(weight));
    }),
    { seed: 4, numRuns: 1000 },
  );
});

test('float16 is rounded to nearest even, once', () => {
  const decode = (bits: number): number => {
    const bytes = new Uint8Array(2);
    viewOf(bytes).setUint16(0, bits, true);
    return numbersOf('float16', bytes)[0] as number;
  };
  const check = (value: number): void =>
    assert.ok(Object.is(decode(toFloat16Bits(value)), f16round(value)), `${value}`);
  for (let bits = 0; bits < 65536; bits++) {
    const value = decode(bits);
    if (!Number.isNaN(value)) assert.is(toFloat16Bits(value), bits);
    // The midpoint to the next number, and its neighbours in f64: where rounding twice goes wrong.
    const next = decode(bits + 1);
    if (!Number.isFinite(value) || !Number.isFinite(next)) continue;
    const middle = (value + next) / 2;
    for (const factor of [1, 1 + 2 ** -50, 1 - 2 ** -50]) check(middle * factor);
  }
  fc.assert(fc.property(fc.double(), check), { seed: 5, numRuns: 20000 });
  for (const value of [65519.999, 65520, -65520, 2 ** -25, 2 ** -25 * 1.0000001, 5e-324, Number.MAX_VALUE])
    check(value);
});

test('bfloat16 is rounded to nearest even, once', () => {
  const decode = (bits: number): number => {
    const bytes = new Uint8Array(2);
    viewOf(bytes).setUint16(0, bits, true);
    return numbersOf('bfloat16', bytes)[0] as number;
  };
  for (let bits = 0; bits < 0x7f7f; bits++) {
    const value = decode(bits);
    const next = decode(bits + 1);
    const middle = (value + next) / 2;
    assert.is(toBfloat16Bits(value), bits);
    assert.is(toBfloat16Bits(middle), bits % 2 === 0 ? bits : bits + 1);
    assert.is(toBfloat16Bits(middle * (1 + 2 ** -50)), middle === 0 ? 0 : bits + 1);
    assert.is(toBfloat16Bits(-middle * (1 - 2 ** -50)), 0x8000 + bits);
  }
  assert.is(toBfloat16Bits(Number.POSITIVE_INFINITY), 0x7f80);
  assert.is(toBfloat16Bits(Number.MAX_VALUE), 0x7f80);
  assert.is(toBfloat16Bits(Number.NaN) & 0x7f80, 0x7f80);
});

test('a finite product or sum that becomes infinite is an error that names the tensor; infinities pass', () => {
  const half = (...values: readonly number[]): Weight => {
    const bytes = new Uint8Array(values.length * 2);
    storeFloats('float16', Float64Array.from(values), 0, values.length, viewOf(bytes), 0);
    return inlineWeight(bytes, 'float16', [values.length]);
  };
  assert.is(
    codeOf(() => evaluate(scale(half(300, 1), 0, half(300, 1)))),
    'OF_WEIGHT_OVERFLOW',
  );
  assert.throws(() => evaluate(scale(half(300, 1), 0, half(300, 1)), 'gate'), /'gate'.*float16/);
  assert.is(
    codeOf(() => evaluate(add([half(65504), half(16)]))),
    'OF_WEIGHT_OVERFLOW',
  );
  assert.equal(numbersOf('float16', evaluate(add([half(65504), half(15)]))), [65504]);
  const infinite = scale(half(Number.POSITIVE_INFINITY, 2), 0, half(3, 3));
  assert.equal(numbersOf('float16', evaluate(infinite)), [Number.POSITIVE_INFINITY, 6]);
  assert.is(overflowOf('float16'), 65520);
  assert.is(Math.fround(overflowOf('float')), Number.POSITIVE_INFINITY);
  assert.ok(Number.isFinite(Math.fround(overflowOf('float') * (1 - 2 ** -53))));
});

test('rows of a requantised matrix are the requantised rows', () => {
  fc.assert(
    fc.property(requantized, fc.nat(), fc.nat(), (weight, a, b) => {
      const rows = weight.dims[0] as number;
      const start = a % rows;
      const end = start + 1 + (b % (rows - start));
      const size = weight.byteLength / rows;
      assert.equal([...evaluate(slice(weight, 0, start, end))], [...evaluate(weight).slice(start * size, end * size)]);
    }),
    { seed: 7, numRuns: 500 },
  );
});

test('quantising again what was not changed gives the same numbers', () => {
  const blocks = Uint8Array.from({ length: 4 * 2 * 16 }, (_, i) => (i * 151 + 29) % 256);
  const scales = new Uint8Array(Float32Array.from({ length: 8 }, (_, i) => (i + 1) / 64).buffer);
  const ones = inlineWeight(new Uint8Array(new Float32Array(64).fill(1).buffer), 'float', [64]);
  // Level 0 in every block: the scale is found again whatever else is in it.
  for (let i = 0; i < blocks.length; i += 16) blocks[i] = 0;
  const matrix = {
    blocks: inlineWeight(blocks, 'uint8', [4, 2, 16]),
    scales: inlineWeight(scales, 'float', [4, 2]),
    zeroPoints: null,
    bits: 4,
  };
  assert.equal([...evaluate(requantize('blocks', matrix, ones))], [...blocks]);
  assert.equal([...evaluate(requantize('scales', matrix, ones))], [...scales]);
});

test('a requantised matrix is as close to the product as a step of each block', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -40, max: 40 }), { minLength: 32, maxLength: 32 }), fc.nat(), (by, seed) => {
      const blocks = Uint8Array.from({ length: 16 }, (_, i) => (i * 37 + seed) % 256);
      const factors = inlineWeight(new Uint8Array(Float32Array.from(by, (x) => x / 16).buffer), 'float', [32]);
      const scales = inlineWeight(new Uint8Array(Float32Array.of(0.25).buffer), 'float', [1, 1]);
      const level = (bytes: Uint8Array, i: number): number => ((bytes[i >> 1] as number) >> (4 * (i % 2))) & 15;
      const matrix = { blocks: inlineWeight(blocks, 'uint8', [1, 1, 16]), scales, zeroPoints: null, bits: 4 };
      const again = evaluate(requantize('blocks', matrix, factors));
      const [scale = 0] = numbersOf('float', evaluate(requantize('scales', matrix, factors)));
      for (const [i, x] of by.entries()) {
        const wanted = (level(blocks, i) - 8) * 0.25 * (x / 16);
        const got = (level(again, i) - 8) * scale;
        // The end of the range without a level of its own is off by up to a step.
        assert.ok(Math.abs(wanted - got) <= Math.abs(scale) * 1.0001, `${wanted} became ${got}, step ${scale}`);
      }
    }),
    { seed: 6, numRuns: 300 },
  );
});

test('scaling by ones changes no bit, not even of a NaN', () => {
  const bytes = Uint8Array.of(0x01, 0x7e, 0x03, 0xfe, 0x00, 0x80, 0x55, 0x55);
  const ones = new Uint8Array(Uint16Array.of(0x3c00, 0x3c00).buffer);
  const weight = scale(inlineWeight(bytes, 'float16', [2, 2]), 0, inlineWeight(ones, 'float16', [2]));
  assert.equal([...evaluate(weight)], [...bytes]);
});

test.run();
