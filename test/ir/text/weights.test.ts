import fc from 'fast-check';
import * as assert from 'uvu/assert';
import {
  add,
  type ByteSource,
  bitsOf,
  byteSize,
  cast,
  concat,
  contract,
  type DataType,
  Diagnostic,
  dataTypeOf,
  inlineWeight,
  MemorySource,
  type Model,
  openModelBytes,
  parseModel,
  printModel,
  requantize,
  scale,
  slice,
  sourceWeight,
  Tensor,
  transpose,
  type Weight,
} from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import { message, modelOf } from '../proto/fixtures.js';
import { parseGraph, roundTrip, roundTripBytes } from './fixtures.js';

const test = suite('ir/text weights');

function tensorOf(model: Model, name = 'w'): Tensor {
  const tensor = model.graph.value(name)?.initializer;
  assert.ok(tensor);
  return tensor;
}

function bytesOf(model: Model, name = 'w'): number[] {
  const weight = tensorOf(model, name).weight;
  assert.ok(weight?.op === 'inline');
  return [...weight.bytes];
}

/** The constants of a tensor with these bytes, and whether they come back. */
function printed(dtype: DataType, dims: readonly number[], bytes: Uint8Array): string {
  const model = parseGraph('g () => () {}');
  model.graph.addInitializer('w', new Tensor('w', dtype, dims, inlineWeight(bytes, dtype, dims)));
  const { text, parsed } = roundTrip(model);
  assert.equal(bytesOf(parsed), [...bytes]);
  return /= (\{.*\})/.exec(text)?.[1] ?? '';
}

const floatBytes = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
const doubleBytes = (...values: number[]) => new Uint8Array(Float64Array.from(values).buffer);
const bitBytes = (...bits: number[]) => new Uint8Array(Uint32Array.from(bits).buffer);

test('a float prints as the shortest decimal that gives it back', () => {
  const values = [0.1, 1 / 3, 1e-12, 16777216, 3.4028234663852886e38, 1.401298464324817e-45, -0, 1e10, 123456.79];
  assert.is(
    printed('float', [9], floatBytes(...values)),
    '{0.1, 0.33333334, 1e-12, 16777216, 3.4028235e+38, 1e-45, -0, 10000000000, 123456.79}',
  );
});

test('every float comes back bit for bit', () => {
  const bits = fc.array(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(bits, (some) => {
      printed('float', [some.length], bitBytes(...some));
    }),
    { numRuns: 200, seed: 1 },
  );
});

test('infinities and NaNs come back, odd NaNs by their bytes', () => {
  assert.is(printed('float', [4], bitBytes(0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000)), '{inf, -inf, nan, -nan}');
  assert.is(printed('float', [1], bitBytes(0x7fc00001)), '{nan}');
  assert.is(printed('double', [4], doubleBytes(0.1, -0, Number.POSITIVE_INFINITY, Number.NaN)), '{0.1, -0, inf, nan}');
});

test('constants of every type print as the official parser reads them', () => {
  const cases: [DataType, number[], number[], string][] = [
    ['int8', [2], [0xff, 0x7f], '{-1, 127}'],
    ['uint8', [2], [0xff, 0x7f], '{255, 127}'],
    ['bool', [3], [0, 1, 1], '{0, 1, 1}'],
    ['int16', [1], [0xff, 0xff], '{-1}'],
    ['uint32', [1], [0xff, 0xff, 0xff, 0xff], '{4294967295}'],
    ['int64', [], [0, 0, 0, 0, 0, 0, 0, 0x80], '{-9223372036854775808}'],
    ['uint64', [], [255, 255, 255, 255, 255, 255, 255, 255], '{18446744073709551615}'],
    ['float16', [1], [0x00, 0x3c], '{15360}'],
    ['bfloat16', [1], [0x80, 0x3f], '{16256}'],
    ['float8e4m3fn', [2], [0x38, 0xff], '{56, 255}'],
    ['complex64', [1], [...floatBytes(1.5, -2)], '{1.5, -2}'],
    ['int4', [3], [0x21, 0x0f], '{33, 15}'],
    ['uint2', [5], [0xe4, 0x01], '{228, 1}'],
    ['float', [0, 3], [], '{}'],
  ];
  for (const [dtype, dims, bytes, expected] of cases) assert.is(printed(dtype, dims, Uint8Array.from(bytes)), expected);
});

test('random bytes of every type come back', () => {
  for (let code = 1; code <= 26; code++) {
    const dtype = dataTypeOf(code);
    if (bitsOf(dtype) === 0) continue;
    for (const count of [1, 2, 7]) {
      const bytes = Uint8Array.from({ length: byteSize(dtype, [count]) }, (_, i) => (i * 151 + code * 37 + 129) % 256);
      printed(dtype, [count], bytes);
    }
  }
});

test('people may write one constant for each small element, and half floats as numbers', () => {
  const graph = (type: string, data: string) => parseGraph(`g () => () <${type} w = {${data}}> {}`);
  assert.equal(bytesOf(graph('int4[3]', '1, -2, 7')), [0xe1, 0x07]);
  assert.equal(bytesOf(graph('uint4[2]', '15, 1')), [0x1f]);
  assert.equal(bytesOf(graph('int2[4]', '1, -2, -1, 0')), [0b00111001]);
  assert.equal(bytesOf(graph('float16[3]', '1.0, 65504.0, 1')), [0x00, 0x3c, 0xff, 0x7b, 1, 0]);
  assert.equal(bytesOf(graph('bfloat16[2]', '1.0, 1.00390625')), [0x80, 0x3f, 0x80, 0x3f]);
});

test('tensors keep the fields their data were in', () => {
  const tensor = (name: string, type: number, field: number, data: Uint8Array, dim = 2) =>
    [5, message([1, dim], [2, type], [field, data], [8, name])] as const;
  const { text } = roundTripBytes(
    modelOf(
      [2, 'g'],
      tensor('f', 1, 4, floatBytes(1, 2)),
      tensor('i', 7, 7, Uint8Array.of(1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1)),
      tensor('h', 10, 5, Uint8Array.of(0x80, 0x78, 0)),
      tensor('b', 9, 5, Uint8Array.of(1, 0)),
      tensor('u', 13, 11, Uint8Array.of(1, 2)),
      tensor('odd', 7, 7, Uint8Array.of(0x81, 0x00, 1)),
      tensor('empty', 1, 9, new Uint8Array(0), 0),
      [5, message([1, 0], [2, 1], [8, 'none'])],
      [5, message([1, 1], [2, 7], [7, 5], [8, 'unpacked'])],
      [5, message([1, 2], [2, 8], [6, 'a'], [6, Uint8Array.of(0xc3)], [8, 's'])],
      [5, message([1, 1], [2, 99], [8, 'newer'], [9, Uint8Array.of(1, 2, 3)])],
    ),
  );
  assert.ok(text.includes('#@ storage typed\n  int64[2] i = {1, -1}'), text);
  assert.ok(text.includes('int64[2] odd = {1, 1}'), text);
});

test('external data print as the official syntax has them, and further entries are kept', () => {
  const model = parseModel(
    '<ir_version: 10> g () => () <float[2] w = ["location": "d/w.bin", "offset": "4", "length": "8", "checksum": "ab"]> {}',
    { resolve: () => source(64, '/m/d/w.bin') },
  );
  const { weight, storage } = tensorOf(model);
  assert.is(weight?.op === 'source' && weight.offset, 4);
  assert.is(storage, 'external');
  const text = printModel(model, { location: () => 'd/w.bin' });
  assert.ok(text.includes('["location": "d/w.bin", "offset": "4", "length": "8", "checksum": "ab"]'), text);
});

function source(size: number, path: string): ByteSource & { path: string } {
  return { id: path, size, path };
}

test('locations are relative to the folder that holds all sources', () => {
  const model = parseGraph('g () => () {}');
  for (const [index, path] of ['/m/a.bin', '/m/d/b.bin', '/m/d/c.bin'].entries()) {
    model.graph.addInitializer(
      `w${index}`,
      new Tensor('', 'int8', [1], sourceWeight(source(9, path), 0, 'int8', [1]), 'external'),
    );
  }
  const text = printModel(model);
  for (const location of ['a.bin', 'd/b.bin', 'd/c.bin']) assert.ok(text.includes(`"location": "${location}"`), text);
});

test('raw data in the model file print as a range of that file', () => {
  const raw = new Uint8Array(4096).fill(7);
  const bytes = modelOf([2, 'g'], [5, message([1, 1024], [2, 1], [8, 'w'], [9, raw])]);
  const { text } = roundTripBytes(bytes);
  assert.match(
    text,
    /float\[1024\] w = \["location": "memory:\d+", "offset": "\d+", "length": "4096", "storage": "raw"\]/,
  );
});

const data = source(4096, '/m/data file.bin');
const other = source(4096, '/m/w.bin');
const leaf = (offset: number, dims: number[], from = other): Weight => sourceWeight(from, offset, 'float', dims);
const bytes = (offset: number, dims: number[]): Weight => sourceWeight(other, offset, 'uint8', dims);
const EXPRESSIONS: Readonly<Record<string, Weight>> = {
  'concat(1, float[2,3]@w.bin+0, float[2,1]@w.bin+24)': concat([leaf(0, [2, 3]), leaf(24, [2, 1])], 1),
  'scale(0, float[2,2]@w.bin+0, float[2]{0.5, 2})': scale(
    leaf(0, [2, 2]),
    0,
    inlineWeight(floatBytes(0.5, 2), 'float', [2]),
  ),
  'scale(0, float[1,2]@w.bin+0, float[1]="AQDAfw==")': scale(
    leaf(0, [1, 2]),
    0,
    inlineWeight(bitBytes(0x7fc00001), 'float', [1]),
  ),
  'slice(1, 1, 3, float[2,4]@w.bin+8)': slice(leaf(8, [2, 4]), 1, 1, 3),
  'transpose(float[2,4]@w.bin+8)': transpose(leaf(8, [2, 4])),
  'contract(float[2,4]@w.bin+8, float[2]@w.bin+0)': contract(leaf(8, [2, 4]), leaf(0, [2])),
  'cast(float, float16[2]@w.bin+8)': cast(sourceWeight(other, 8, 'float16', [2]), 'float'),
  'requantize(scales, 4, uint8[2,1,16]@w.bin+0, float[2,1]@w.bin+32, float[32]@w.bin+40)': requantize(
    'scales',
    { blocks: bytes(0, [2, 1, 16]), scales: leaf(32, [2, 1]), zeroPoints: null, bits: 4 },
    leaf(40, [32]),
  ),
  'requantize(blocks, 4, uint8[2,1,16]@w.bin+0, float[2,1]@w.bin+32, uint8[2,1]@w.bin+40, float[30]@w.bin+44)':
    requantize(
      'blocks',
      { blocks: bytes(0, [2, 1, 16]), scales: leaf(32, [2, 1]), zeroPoints: bytes(40, [2, 1]), bits: 4 },
      leaf(44, [30]),
    ),
  'add(float[2]@w.bin+0, float[2]@"data file.bin"+8)': add([leaf(0, [2]), leaf(8, [2], data)]),
};

test('expressions print as calls and come back as the same weights', () => {
  for (const [expected, weight] of Object.entries(EXPRESSIONS)) {
    const model = parseGraph('g () => () {}');
    const kept = new Tensor('w', weight.dtype, weight.dims, weight);
    model.graph.addInitializer('w', kept);
    const text = printModel(model, { location: (each) => each.id.slice(3) });
    const escaped = expected.replaceAll('"', '\\"');
    assert.ok(text.includes(`["expr": "${escaped}", "storage": "raw"]`), text);
    const parsed = parseModel(text, { resolve: (location) => (location === 'w.bin' ? other : data) });
    assert.is(tensorOf(parsed).weight, weight, expected);
    assert.is(tensorOf(parsed).storage, 'raw');
  }
});

test('expressions that make no sense are refused, with their place', () => {
  const bad: [expression: string, message: RegExp][] = [
    ['concat(1, float[2,3]@w.bin+0, float[3,1]@w.bin+24)', /line 2, column 23: .* found concat of/],
    ['scale(0, float[2]@w.bin+0)', /character 26 of the expression: expected ','/],
    ['float[2]@w.bin+4090', /OF_EXTERNAL_SHORT .*4096 bytes, 4098/],
    ['float[3]@w.bin+0', /found an expression of type float\[3\]/],
    ['multiply(float[2]@w.bin+0)', /expected concat, scale/],
    ['requantize(rows, 4, float[2]@w.bin+0)', /expected blocks, scales, zero_points, found 'rows'/],
    ['requantize(scales, 4, uint8[2,1,16]@w.bin+0, float[2,1]@w.bin+32)', /zero points where there are any/],
    ['requantize(scales, 4, uint8[2,1,16]@w.bin+0, float[2,2]@w.bin+32, float[32]@w.bin+0)', /found requantize scales/],
    ['slice(0, 3, 1, float[2]@w.bin+0)', /found slice \[3, 1\)/],
    ['float[2]@w.bin+0 x', /expected the end of the text, found 'x'/],
    ['float[2]="AAA="', /OF_TENSOR_SIZE/],
    ['float[2]="!"', /expected base64/],
    [`${'transpose('.repeat(70)}float[2,2]@w.bin+0${')'.repeat(70)}`, /nested at most 64 deep/],
  ];
  for (const [expression, pattern] of bad) {
    const text = `<ir_version: 10, opset_import: []> g () => () <\n  float[2] weight  =  ["expr": "${expression.replaceAll('"', '\\"')}"]> {}`;
    try {
      parseModel(text, { resolve: () => other });
      assert.unreachable(expression);
    } catch (error) {
      assert.instance(error, Diagnostic, expression);
      assert.match((error as Diagnostic).message, pattern);
    }
  }
});

test('text that refers to files is refused without a way to find them', () => {
  for (const entries of ['"location": "w.bin"', '"expr": "float[2]@w.bin+0"']) {
    assert.throws(
      () => parseGraph(`g () => () <float[2] w = [${entries}]> {}`),
      (error: unknown) =>
        error instanceof Diagnostic && error.code === 'OF_TEXT' && /no folder is known/.test(error.message),
    );
  }
});

test('elided weights print their size, and such text is refused', () => {
  const values = Array.from({ length: 300 }, (_, i) => i);
  const model = parseGraph(`g () => () <float[300] w = {${values}}, float[2] small = {1, 2}> {}`);
  assert.ok(printModel(model).includes('298, 299}'));
  const text = printModel(model, { weights: 'elide' });
  assert.ok(text.includes('float[300] w = ["elided": "1200 bytes"]'), text);
  assert.ok(text.includes('small = {1, 2}'), text);
  assert.throws(() => parseModel(text), /found an elided weight/);
});

test('a source in memory is named by what identifies it', () => {
  const memory = new MemorySource(new Uint8Array(8));
  const model = openModelBytes(modelOf([2, 'g']), '/nowhere');
  model.graph.addInitializer('w', new Tensor('w', 'float', [2], sourceWeight(memory, 0, 'float', [2]), 'external'));
  assert.ok(printModel(model).includes(`"location": "${memory.id}"`));
});

test.run();
