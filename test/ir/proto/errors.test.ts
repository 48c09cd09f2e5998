import * as assert from 'uvu/assert';
import { Diagnostic, openModelBytes } from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import { codeOf, type FieldSpec, floats, info, message, modelOf, node, rawBytes, smallModel } from './fixtures.js';

const test = suite('ir/proto errors');

const codeOfBytes = (bytes: Uint8Array): string => codeOf(() => openModelBytes(bytes, '/nowhere'));

test('what is no model is refused with the reason', () => {
  const text = (content: string) => new TextEncoder().encode(content);
  assert.is(codeOfBytes(new Uint8Array(0)), 'OF_NOT_ONNX');
  assert.is(codeOfBytes(text('version https://git-lfs.github.com/spec/v1\noid sha256:0\n')), 'OF_NOT_ONNX');
  assert.is(codeOfBytes(message([2, 'only a producer'])), 'OF_NOT_ONNX');
  assert.is(codeOfBytes(message([1, 10])), 'OF_MISSING_FIELD');
  assert.is(codeOfBytes(message([7, message([2, 'g'])])), 'OF_MISSING_FIELD');
  assert.is(codeOfBytes(message([1, 10], [7, message()], [7, message()])), 'OF_BAD_WIRE');
  for (const content of ['<html></html>', '{"json": true}', 'ir_version: 10', '\x00\x00\x00\x00']) {
    assert.match(codeOfBytes(text(content)), /^OF_(NOT_ONNX|BAD_WIRE|TRUNCATED)$/, content);
  }
});

test('graphs that are no graphs are refused, and the message names the place', () => {
  const cases: readonly [code: string, place: RegExp, bytes: Uint8Array][] = [
    ['OF_CYCLE', /node 'loop'/, modelOf([1, node('A', ['b'], ['a'], [3, 'loop'])], [1, node('B', ['a'], ['b'])])],
    ['OF_CYCLE', /#0 \(A\)/, modelOf([1, node('A', ['a'], ['a'])])],
    ['OF_DUPLICATE_NAME', /'y'/, modelOf([1, node('A', [], ['y'])], [1, node('B', [], ['y'])])],
    ['OF_DUPLICATE_NAME', /'y'/, modelOf([1, node('A', [], ['y', 'y'])])],
    ['OF_DUPLICATE_NAME', /'x'/, modelOf([11, info('x')], [11, info('x')])],
    ['OF_DUPLICATE_NAME', /'x'/, modelOf([1, node('A', [], ['x'])], [11, info('x')])],
    ['OF_DUPLICATE_NAME', /'w'/, modelOf([5, floats('w', [1])], [5, floats('w', [1])])],
    // A Constant of the name of an initializer, and an initializer that holds more than its shape says.
    ['OF_DUPLICATE_NAME', /'w'/, modelOf([1, node('Constant', [], ['w'])], [5, floats('w', [1])])],
    ['OF_TENSOR_SIZE', /'w'/, modelOf([5, floats('w', [1, 2, 3, 4], [3])])],
    [
      'OF_UNDEFINED_VALUE',
      /graph 'g', node 'n'.*'nobody'/,
      modelOf([1, node('A', ['nobody'], [], [3, 'n'])], [2, 'g']),
    ],
    ['OF_UNDEFINED_VALUE', /output list.*'nobody'/, modelOf([12, info('nobody')])],
    ['OF_MISSING_FIELD', /op_type/, modelOf([1, message([2, 'y'])])],
    ['OF_MISSING_FIELD', /input name/, modelOf([11, message()])],
    [
      'OF_BAD_WIRE',
      /'k' occurs twice/,
      modelOf([1, node('A', [], [], [5, message([1, 'k'])], [5, message([1, 'k'])])]),
    ],
  ];
  for (const [code, place, bytes] of cases) {
    assert.is(codeOfBytes(bytes), code);
    assert.throws(() => openModelBytes(bytes, '/nowhere'), place);
  }
});

test('tensors whose bytes do not fit their shape are refused', () => {
  const tensor = (...fields: readonly FieldSpec[]) => modelOf([5, message([8, 'w'], ...fields)]);
  assert.is(codeOfBytes(tensor([1, 3], [2, 1], [9, rawBytes(1, 2)])), 'OF_TENSOR_SIZE');
  assert.is(codeOfBytes(tensor([1, 3], [2, 1])), 'OF_TENSOR_SIZE');
  assert.is(codeOfBytes(tensor([1, 3], [2, 1], [4, rawBytes(1, 2)])), 'OF_TENSOR_SIZE');
  assert.is(codeOfBytes(tensor([1, 1], [2, 7], [5, Uint8Array.of(1)])), 'OF_TENSOR_SIZE');
  assert.is(codeOfBytes(tensor([1, -1], [2, 1])), 'OF_UNSAFE_INTEGER');
  assert.is(codeOfBytes(tensor([1, 1n << 60n], [2, 1])), 'OF_UNSAFE_INTEGER');
  // A shape of many terabytes costs nothing to refuse.
  assert.is(codeOfBytes(tensor([1, 2 ** 50], [2, 7], [7, Uint8Array.of(1, 2, 3)])), 'OF_TENSOR_SIZE');
  assert.is(codeOfBytes(tensor([1, 1], [2, 1], [4, rawBytes(1)], [9, rawBytes(1)])), 'OF_BAD_WIRE');
});

test('graphs nested too deeply are refused before the stack ends', () => {
  let graph = message([2, 'innermost']);
  for (let i = 0; i < 2000; i++) graph = message([1, node('If', [], [], [5, message([1, 'g'], [6, graph], [20, 5])])]);
  assert.is(codeOfBytes(message([1, 10], [7, graph])), 'OF_TOO_DEEP');
  let type = message([1, message([1, 1])]);
  for (let i = 0; i < 2000; i++) type = message([4, message([1, type])]);
  assert.is(codeOfBytes(modelOf([11, message([1, 'x'], [2, type])])), 'OF_BAD_WIRE');
  const groups = new Uint8Array(100_000).fill(0x0b);
  assert.match(codeOfBytes(groups), /^OF_(BAD_WIRE|TRUNCATED)$/);
});

/** Opening these bytes either works or throws a Diagnostic. */
function mustBeCivil(bytes: Uint8Array, what: string): 'opened' | 'refused' {
  try {
    openModelBytes(bytes, '/nowhere');
    return 'opened';
  } catch (error) {
    if (error instanceof Diagnostic) return 'refused';
    throw new Error(`${what}: ${error instanceof Error ? error.stack : error}`);
  }
}

/** A model with a bit of everything. */
function richModel(): Uint8Array {
  const body = message([1, node('Relu', ['x'], ['i'])], [5, floats('c', [3])], [12, info('i')]);
  const attributes = [
    message([1, 'g'], [6, body], [20, 5]),
    message([1, 'ints'], [8, 4], [8, 5], [20, 7]),
    message([1, 't'], [5, message([1, 2], [2, 7], [7, Uint8Array.of(1, 2)])], [20, 4]),
  ];
  const external = message([1, 2], [2, 1], [8, 'e'], [13, message([1, 'location'], [2, 'w.bin'])]);
  return message(
    [1, 10],
    [2, 'maker'],
    [
      7,
      message(
        [1, node('If', ['x', 'w'], ['y'], [3, 'n'], ...attributes.map((item) => [5, item] as const))],
        [2, 'rich'],
        [5, floats('w', [1, 2])],
        [5, message([1, 0], [2, 1], [8, 'none'])],
        [11, info('x')],
        [12, info('y')],
        [13, info('w')],
        [15, message([1, message([1, 1], [2, 1], [8, 's'], [9, rawBytes(1)])], [3, 4])],
        [16, message([1, 'k'], [2, 'v'])],
      ),
    ],
    [8, message([1, ''], [2, 21])],
    [14, message([1, 'k'], [2, external])],
    [25, message([1, 'f'], [4, 'a'], [5, 'b'], [7, node('Relu', ['a'], ['b'])])],
  );
}

test('a file cut off anywhere is refused', () => {
  for (const bytes of [smallModel(), richModel()]) {
    const whole = mustBeCivil(bytes, 'the whole model');
    assert.is(whole, 'opened');
    for (let length = 0; length < bytes.length; length++) {
      mustBeCivil(bytes.subarray(0, length), `the first ${length} bytes`);
    }
  }
  // Where a length runs past the end, that is what is said.
  const bytes = smallModel();
  assert.is(codeOfBytes(bytes.subarray(0, 40)), 'OF_TRUNCATED');
});

test('random damage never causes anything but a diagnostic', () => {
  const original = richModel();
  let state = 20251123;
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  let refused = 0;
  for (let round = 0; round < 6000; round++) {
    const bytes = Uint8Array.from(original);
    for (let i = 0; i <= random(4); i++) bytes[random(bytes.length)] = random(256);
    if (mustBeCivil(bytes, `round ${round}`) === 'refused') refused++;
  }
  assert.ok(refused > 1000, `${refused} refused`);
});

test.run();
