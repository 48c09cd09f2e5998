import * as assert from 'uvu/assert';
import { Diagnostic, MemorySource, parseModel, printModel } from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import { parseGraph } from './fixtures.js';

const test = suite('ir/text errors');

function messageOf(text: string): string {
  try {
    parseModel(text);
  } catch (error) {
    assert.instance(error, Diagnostic, `${error}\n${text.slice(0, 500)}`);
    return (error as Diagnostic).message;
  }
  return '';
}

test('errors give line and column, what was found and what was expected', () => {
  const cases: [text: string, message: string][] = [
    ['', 'OF_TEXT line 1, column 1: expected the name of a graph, found the end of the text; correct the text'],
    ['<ir_version: ten>', "OF_TEXT line 1, column 14: expected an IR version, found 'ten'; correct the text"],
    ['<ir_version: 1,\n  colour: 3>', 'line 2, column 3: expected one of ir_version, opset_import, doc_string'],
    ['g (float x)\n => float y {}', "line 2, column 5: expected '(', found 'float'"],
    [
      'g (float x) => (y) {}',
      "OF_UNDEFINED_VALUE line 1, column 17: the value 'y' is read here, and nothing defines it",
    ],
    ['g () => () {\n  y = Relu (x)\n}', "OF_UNDEFINED_VALUE line 2, column 13: the value 'x' is read here"],
    ['g (x, x) => () {}', "OF_DUPLICATE_NAME line 1, column 7: the value 'x' is defined twice"],
    ['g (x, y) => () { x = Neg (y) }', "OF_DUPLICATE_NAME line 1, column 18: the value 'x'"],
    ['g (x) => () {\n a, a = Split (x) }', "OF_DUPLICATE_NAME line 2, column 5: the value 'a'"],
    ['g () => () <float w = {1}, float w = {2}> {}', 'OF_DUPLICATE_NAME line 1, column 28'],
    ['g () => () { y = Neg (z)\n z = Neg (y) }', 'OF_CYCLE line 1, column 14'],
    ['g () => () <float[2] w = {1}> {}', 'line 1, column 26: expected 2 constants, found 1'],
    ['g () => () <string[2] w = {"a"}> {}', 'line 1, column 27: expected 2 strings, found 1'],
    [
      'g () => () <uint8[1] w = {256}> {}',
      "line 1, column 27: expected an integer of 8 bits without a sign, found '256'",
    ],
    ['g () => () <int64 w = {9223372036854775808}> {}', 'line 1, column 24: expected an integer of 64 bits'],
    ['g () => () <int8 w = {1.5}> {}', "line 1, column 23: expected an integer, found '1.5'"],
    ['g () => () <float w = {1e39}> {}', 'expected a number in the range of a float'],
    ['g () => () <float[N] w = {1}> {}', 'line 1, column 13: expected a tensor type with a size for every dimension'],
    ['g () => () <float[] w = {1}> {}', 'expected a tensor type with a size'],
    ['g () => () <float[1048576,1048576,1048576] w = {1}> {}', 'expected a tensor of less than 2^49 elements'],
    ['g (float[9007199254740993] x) => () {}', 'expected a dimension below 2^53'],
    ['g () => () { y = Op <a: int = 1.5> () }', 'line 1, column 31: expected a value of type int'],
    ['g () => () { y = Op <a: colour = 1> () }', 'line 1, column 25: expected the type of an attribute'],
    ['g () => () { y = Op <a = []> () }', 'expected a type for this empty list'],
    ['g () => () { y = Op <a: int = [1]> () }', 'expected one value of type int'],
    ['g () => () { y = Op <a = [1, "b"]> () }', 'expected only values of type int in this list'],
    ['g () => () { y = Op <a = 1, a = 2> () }', 'line 1, column 29: expected another name'],
    ['g () => () { y = "open () }', 'line 1, column 18: expected a closing quote, found an open string'],
    ['g () => () {} rest', "line 1, column 19: expected '(', found the end of the text"],
    ['g () => () { y = Op < () }', "expected an attribute, found '('"],
    [
      '<ir_version: 10> g () => () {} <domain: "d", colour: 1>',
      'expected one of opset_import, doc_string, domain, overload',
    ],
    ['g () => () {} <domain: "d"> f <a: tensor = float {1}> () => () {}', 'expected a plain value'],
    [
      'g (x) => () { y = If (x) <b = h () => (float q) { q = Neg (nowhere) }> }',
      "line 1, column 60: the value 'nowhere' is read here",
    ],
  ];
  for (const [text, expected] of cases) {
    const message = messageOf(text);
    assert.ok(message.includes(expected), `${text}\n  gave     ${message}\n  expected ${expected}`);
  }
});

test('directives that are misplaced or malformed are refused where they stand', () => {
  const cases: [text: string, message: string][] = [
    ['g (x #@ doc "d"\n) => () {}', "line 1, column 6: expected no directive here, found '#@ doc'"],
    ['g () => () {\n#@ doc "d"\n}', 'line 2, column 1: expected no directive here'],
    ['g () => () {}\n#@ doc "d"', 'line 2, column 1: expected no directive here'],
    ['g () => () {\n#@ storage raw\n= Op () }', 'line 2, column 4: expected one of fields, present'],
    ['g () => () {\n#@ "doc" "d"\n= Op () }', 'line 2, column 4: expected one of fields'],
    ['g () => () {\n#@\n= Op () }', 'line 2, column 1: expected one of fields'],
    ['g () => () {\n#@ doc d\n= Op () }', "line 2, column 8: expected a quoted string in this directive, found 'd'"],
    ['g () => () {\n#@ doc\n= Op () }', 'expected a quoted string in this directive, found nothing more'],
    ['g () => () {\n#@ doc "d" 1\n= Op () }', "line 2, column 12: expected the end of the line, found '1'"],
    ['g () => () {\n#@ doc "d\n= Op () }', 'line 2, column 8: expected a closing quote on this line'],
    ['g () => () {\n#@ doc "\\x"\n= Op () }', 'line 2, column 8: expected a string in JSON syntax'],
    ['g () => () {\n#@ fields "a"\n= Op () }', 'line 2, column 11: expected base64'],
    ['g () => () {\n#@ wire "/////w=="\n= Op () }', 'line 3, column 1: expected directives that fit what follows'],
    ['g () => () {\n#@ attribute a doc "d"\n= Op () }', "expected an attribute 'a', which a directive is about"],
    ['g () => () {\n#@ order 1 x\n= Op () }', 'expected an integer below 2^53 in this directive'],
    ['#@ range 20 2 "file" 0 4\n<ir_version: 10> g () => () {}', 'expected no reference to a file'],
    ['g () => () <\n#@ storage floppy\nfloat w = {1}> {}', 'expected raw or typed or external'],
  ];
  for (const [text, expected] of cases) {
    const message = messageOf(text);
    assert.ok(message.includes(expected), `${text}\n  gave     ${message}\n  expected ${expected}`);
  }
});

test('nesting without end is refused', () => {
  const depth = 100_000;
  const graphs = 'g () => () { y = If () <b: graph = '.repeat(depth);
  assert.match(messageOf(graphs), /OF_TOO_DEEP line 1, column \d+: its graphs are nested deeper than 64/);
  assert.match(messageOf(`g (${'seq('.repeat(depth)}`), /types nested at most 32 deep/);
  assert.match(messageOf(`g () => () { y = Op <a = ${'['.repeat(depth)}`), /expected a value/);
  assert.match(messageOf('<'.repeat(depth)), /expected a key/);
});

test('a resolver that fails is a diagnostic too', () => {
  const text = 'g () => () <float w = ["location": "w.bin"]> {}';
  const resolve = () => {
    throw new Error('no such thing');
  };
  assert.throws(() => parseModel(text, { resolve }), /OF_READ w.bin: it cannot be read: no such thing/);
});

/** A deterministic random number below `limit`. */
function randomizer(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state * 48271) % 2147483647;
    return state % limit;
  };
}

const PIECES = [
  '"',
  '\\',
  '{',
  '}',
  '(',
  ')',
  '[',
  ']',
  '<',
  '>',
  ',',
  ':',
  '=',
  '@',
  '#',
  '#@ ',
  '\n',
  '.',
  '-',
  '?',
  '0',
  '9'.repeat(60),
  '1e999',
  'nan',
  'float',
  'float[',
  'seq(',
  'string',
  'graph',
  ' doc "x"\n',
  'type "AA=="\n',
  'range 5 2 "AA=="\n',
  'wire "CgF4"\n',
  'fields "CgF4"\n',
  'order 1 1\n',
  'absent name\n',
  '"location": ',
  '"expr": "concat(0, ',
  '\u0000',
  '\ud800',
  'ü',
];

test('mutated text never throws anything but a diagnostic', () => {
  const original = printModel(
    parseGraph(`
#@ doc "graph"
g (float[N,2] x, bool c, seq(float[]) s, map(int64, float) m) => (float[2] y, r) <
  #@ storage typed
  float[2] w = {1, -0.5}, int4[3] q = {33, 1}, string[2] t = {"a", "b"}, float[N] v, float[3] ghost
> {
  #@ metadata "k" "v"
  #@ attribute a doc "what"
  [n] v = com.microsoft.Op:o <a = 1, b = [1.5, 2.0], c = "s", d: tensor = float[1] z {1}, e: type_proto = float> (x, "", w)
  y, "" = If (c) <then_branch: graph = h () => (float p) <float[1] k = {1}> { p = Neg (v) }, else_branch: graph = i () => (v) {}>
  r = Loop (x)
}
<domain: "my", opset_import: ["": 21]> F <alpha: float = 1.0, beta> (a) => (b) { b = Mul <k: int = @beta> (a, a) }`),
  );
  const random = randomizer(42);
  const source = new MemorySource(new Uint8Array(64));
  let parsed = 0;
  for (let round = 0; round < 4000; round++) {
    let text = original;
    for (let changes = 1 + random(3); changes > 0; changes--) {
      const at = random(text.length);
      const length = random(4) === 0 ? random(40) : random(3);
      const insert =
        random(3) === 0 ? text.slice(random(text.length)).slice(0, random(30)) : PIECES[random(PIECES.length)];
      text = text.slice(0, at) + (random(4) === 0 ? '' : insert) + text.slice(at + length);
    }
    try {
      printModel(parseModel(text, { resolve: () => source }));
      parsed++;
    } catch (error) {
      assert.instance(error, Diagnostic, `${(error as Error).stack}\n${text}`);
    }
  }
  assert.ok(parsed > 100, `only ${parsed} mutations parsed`);
});

test.run();
