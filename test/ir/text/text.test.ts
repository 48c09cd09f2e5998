import * as assert from 'uvu/assert';
import { type Model, openModelBytes, parseModel, printGraph, printModel } from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import { type FieldSpec, floats, info, message, modelOf, node, smallModel } from '../proto/fixtures.js';
import { linesOf, parseGraph, roundTrip, roundTripBytes } from './fixtures.js';

const test = suite('ir/text round trip');

const UNKNOWN: FieldSpec = [99, 'from the future'];
const METADATA = message([1, 'key "q"'], [2, 'line\nbreak']);

test('a small model prints as people would write it', () => {
  assert.is(
    printModel(openModelBytes(smallModel(), '/nowhere')),
    `<
  ir_version: 10,
  opset_import: ["" : 21]
>
small (float[2] x) => (float[2] y) <
  float[2] w = {1, 2}
> {
  #@ order 1 1 2 4 3
  [add] y = Add (x, w)
}
`,
  );
});

test('the line ends of Windows give the same model, strings of several lines included, and a carriage return stays one', () => {
  const model = parseGraph(`g (float[2] x) => (float[2] y) {
      [odd] y = Op <s: string = "two
lines", r: string = "a\\u000db"> (x) # and a remark
    }`);
  const text = printModel(model);
  assert.match(text, /"two\nlines"/);
  assert.match(text, /"a\\u000db"/);
  const onWindows = text.replaceAll('\n', '\r\n');
  assert.is.not(onWindows, text);
  assert.is(printModel(parseModel(onWindows)), text);
  assert.is(printModel(parseModel(`\ufeff${onWindows}`)), text);
});

test('every kind of attribute comes back', () => {
  const { text } = roundTrip(
    parseGraph(`g (float[2] x, bool c) => (float[2] y) {
      a = Op <f: float = 0.1, f1: float = 3.0, i: int = -9223372036854775808, s: string = "a\\"b\\\\c
d", t: tensor = int64[2] {1, 2}, named: tensor = float w {0.5}, fs: floats = [1.0, -inf, nan, 1e-45], is: ints = [],
        ss: strings = ["", "ü"], ts: tensors = [float {1}, int8[1] {-1}], ty: type_proto = seq(float[N]),
        tys: type_protos = [float, optional(int64[])], "odd name": int = 1> (x)
      y = If (c) <
        then_branch: graph = then () => (float[2] u) <float[2] w = {1, 2}> { u = Add (x, w) },
        else_branch: graph = other () => (float[2] v) { v = Relu (a) }
      >
      z = Many (c) <bodies: graphs = [one (float p) => (p) {}, two () => () {}], none: graphs = []>
    }`),
  );
  assert.ok(text.includes('f: float = 0.1, f1: float = 3.0, i: int = -9223372036854775808'), text);
  assert.ok(text.includes('fs: floats = [1.0, -inf, nan, 1e-45], is: ints = []'), text);
});

test('attributes that only bytes can say come back', () => {
  const attribute = (name: string, type: number, ...more: FieldSpec[]) =>
    [5, message([1, name], ...more, [20, type])] as const;
  const sparse = message([1, floats('v', [1])], [2, floats('i', [0])], [3, 4]);
  const { text } = roundTripBytes(
    modelOf(
      [
        1,
        node(
          'Op',
          [],
          ['y'],
          attribute('bytes', 3, [4, Uint8Array.of(0xff, 0xfe, 0x41)]),
          attribute('list', 8, [9, 'ok'], [9, Uint8Array.of(0x80)]),
          attribute('sparse', 11, [22, sparse]),
          attribute('sparses', 12, [23, sparse], [23, sparse]),
          attribute('newer', 77, [40, 'x']),
          attribute('documented', 2, [3, 5], [13, 'what for']),
          attribute('zero', 2),
          [5, message([1, 'untyped'], [3, 7])],
          attribute('denoted', 13, [14, message([1, message([1, 1])], [6, 'IMAGE'])]),
          [5, message([1, 'extra'], [3, 1], [20, 2], UNKNOWN)],
        ),
      ],
      [2, 'g'],
      [12, info('y')],
    ),
  );
  const lines = linesOf(text);
  assert.ok(lines.includes('#@ attribute bytes bytes "//5B"'), text);
  assert.ok(lines.includes('#@ attribute list bytes 1 "gA=="'), text);
  assert.ok(lines.includes('#@ attribute documented doc "what for"'), text);
  assert.ok(lines.includes('#@ attribute zero absent i'), text);
});

test('functions come back with their defaults, overloads and types', () => {
  const model = parseModel(`<ir_version: 10, opset_import: ["": 21, "my": 1]>
    g (float[2] x) => (float[2] y) { y = my.F:two <alpha = 2.5> (x) }
    <domain: "my", overload: "two", opset_import: ["": 21], doc_string: "twice">
    F <beta, alpha: float = 1.5, axes: ints = [1, 2]> (a) => (b) <float[N] t> {
      k = Constant <value_float: float = @alpha> ()
      t = Mul (a, k)
      b = Identity (t)
    }
    <domain: "my", opset_import: []> Empty () => () {}`);
  const { text, parsed } = roundTrip(model);
  assert.ok(text.includes('F <beta, alpha: float = 1.5, axes: ints = [1, 2]> (a) => (b) <'), text);
  assert.equal(parsed.functions[0]?.attributeNames, ['beta']);
  assert.is(parsed.functions[0]?.body.value('t')?.type?.kind, 'tensor');
});

test('a function default that is no plain value stays carried', () => {
  const tensor = message([1, 'w'], [5, floats('', [1])], [20, 4]);
  const item = message(
    [1, 'F'],
    [6, 'a'],
    [7, node('Relu', ['x'], ['y'])],
    [4, 'x'],
    [5, 'y'],
    [9, message([1, ''], [2, 21])],
    [10, 'my'],
    [11, tensor],
    [14, METADATA],
    UNKNOWN,
  );
  const graph = message([1, node('F', ['x'], ['y'], [7, 'my'])], [2, 'g'], [11, info('x')], [12, info('y')]);
  const opsets = [['', 21] as const, ['my', 1] as const].map(
    ([domain, version]) => [8, message([1, domain], [2, version])] as const,
  );
  const { text } = roundTripBytes(message([1, 10], [7, graph], ...opsets, [25, item]));
  assert.ok(
    linesOf(text).some((line) => line.startsWith('#@ range 11 2 "')),
    text,
  );
});

test('documentation comes back wherever it stands', () => {
  const documented = (field: number, doc: number, metadata: number, ...fields: FieldSpec[]): FieldSpec => [
    field,
    message(...fields, [doc, 'about\n"it"'], [metadata, METADATA]),
  ];
  const shape = message([2, message([1, message([1, 2])])]);
  const type = message([1, Uint8Array.from([8, 1, ...shape])]);
  const graph = message(
    documented(1, 6, 9, [1, 'x'], [1, 'w'], [2, 't'], [4, 'Add']),
    [1, node('Relu', ['t'], ['y'])],
    [2, 'g'],
    [5, message([1, 2], [2, 1], [8, 'w'], [9, new Uint8Array(8)], [12, 'weights'], [16, METADATA])],
    [10, 'the graph'],
    documented(11, 3, 4, [1, 'x'], [2, type]),
    documented(12, 3, 4, [1, 'y'], [2, type]),
    documented(13, 3, 4, [1, 't'], [2, type]),
    [16, METADATA],
  );
  const { text, parsed } = roundTripBytes(
    message(
      [1, 10],
      [2, 'maker'],
      [3, '1.0'],
      [4, 'dom'],
      [5, 7],
      [6, 'the\nmodel'],
      [7, graph],
      [8, message([1, ''], [2, 21])],
      [14, METADATA],
    ),
  );
  assert.is(parsed.graph.value('x')?.docString, 'about\n"it"');
  assert.equal(parsed.graph.value('t')?.metadata, [['key "q"', 'line\nbreak']]);
  assert.is([...text.matchAll(/#@ metadata "key \\"q\\"" "line\\nbreak"/g)].length, 6, text);
});

test('unknown fields, field order, defaults written out and odd varints come back', () => {
  // ir_version 10 in two bytes.
  const odd = Uint8Array.of(0x08, 0x8a, 0x00);
  const graph = message(
    [2, 'g'],
    UNKNOWN,
    [11, message([1, 'x'], [2, message([1, message([1, 1])], [6, 'TENSOR'])], UNKNOWN)],
    [1, message([3, ''], [2, 'y'], [1, 'x'], [4, 'Relu'], [7, ''], [6, ''], UNKNOWN)],
    [1, node('Relu', ['y'], ['z'], [10, message([1, 'devices'], [3, 2])])],
    [5, message([1, 2], [2, 1], [4, new Uint8Array(8)], [8, 'w'], [14, 0], UNKNOWN)],
    [12, message([1, 'z'])],
    [14, message([1, 'y'], [2, METADATA])],
  );
  const { text } = roundTripBytes(
    Buffer.concat([
      odd,
      message(
        [7, graph],
        [8, message([2, 21])],
        [8, message([1, 'x'], [2, 1], UNKNOWN)],
        [20, message([1, 'training'])],
        [26, message([1, 'cfg'], [2, 2], [3, 'gpu0'])],
        UNKNOWN,
      ),
    ]),
  );
  const lines = linesOf(text);
  assert.ok(
    lines.some((line) => line.startsWith('#@ wire ')),
    text,
  );
  assert.ok(lines.includes('#@ opset 0 absent domain'), text);
  assert.ok(lines.includes('#@ present name domain'), text);
  assert.ok(
    lines.some((line) => line.startsWith('#@ order ')),
    text,
  );
});

test('types of every kind come back', () => {
  const types = ['float', 'float[]', 'int4[N,?,3,"batch size"]', 'seq(seq(float[N]))', 'map(int64, string[])'];
  types.push('optional(seq(bfloat16[2]))', 'sparse_tensor(float[2,3])', 'opaque(test.domain, Name)', 'opaque()');
  const inputs = types.map((type, index) => `${type} v${index}`);
  const { text } = roundTrip(parseGraph(`g (${inputs.join(', ')}, opaque(Name) k, untyped) => () {}`));
  const lines = linesOf(text);
  for (const input of inputs) assert.ok(lines.includes(`${input},`), text);
  assert.ok(lines.includes('untyped'), text);
});

test('types that the official syntax cannot say come back', () => {
  const typed = (name: string, type: Uint8Array): FieldSpec => [11, message([1, name], [2, type])];
  const { text } = roundTripBytes(
    modelOf(
      [2, 'g'],
      typed('none', new Uint8Array(0)),
      typed('undefined', message([1, message([1, 0])])),
      typed('newer', message([1, message([1, 99])])),
      typed('negative', message([1, message([1, 1], [2, message([1, message([1, -1])])])])),
      typed('denoted', message([4, message([1, message([1, message([1, 1])])])], [6, 'IMAGES'])),
    ),
  );
  assert.is(linesOf(text).filter((line) => line.startsWith('#@ type ')).length, 4, text);
});

test('names that are no identifiers are quoted, types that are names too', () => {
  const { text, parsed } = roundTrip(
    parseGraph(
      `"a graph" (float float, float "x/0", float "say \\"hi\\" \\\\ there", float "ß
newline") => (float "") {}`
        .replace('float ""', 'float "x/0"')
        .replace('{}', '{ ["node/1"] "日本" = "my-domain"."aten::add":"v 1" (float, "", "x/0") }'),
    ),
  );
  assert.ok(text.includes('["node/1"] "日本" = "my-domain"."aten::add":"v 1" ("float", "", "x/0")'), text);
  assert.ok(parsed.graph.value('ß\nnewline'));
  assert.ok(parsed.graph.value('say "hi" \\ there'));
});

test('names of subgraphs and of tensors in attributes that the official parser cannot read are directives', () => {
  const attributes: FieldSpec[] = [
    [5, message([1, 'g'], [6, message([2, 'If/then 1'])], [20, 5])],
    [5, message([1, 'h'], [6, message([2, 'float'])], [20, 5])],
    [5, message([1, 't'], [5, floats('a/b', [1])], [20, 4])],
    [5, message([1, 'ts'], [10, floats('ok', [1])], [10, floats('c d', [1])], [20, 9])],
  ];
  const { text } = roundTripBytes(modelOf([1, node('Op', [], ['y'], ...attributes)], [2, 'g']));
  const lines = linesOf(text);
  assert.ok(lines.includes('#@ name "If/then 1"'), text);
  assert.ok(lines.includes('#@ name "float"'), text);
  assert.ok(lines.includes('#@ tensor t name "a/b"'), text);
  assert.ok(lines.includes('#@ tensor ts 1 name "c d"'), text);
});

test('nodes out of order print as they stood in the file', () => {
  const bytes = modelOf(
    [1, node('Relu', ['t'], ['y'])],
    [1, node('Neg', ['x'], ['t'])],
    [2, 'g'],
    [11, info('x')],
    [12, info('y')],
  );
  const { text, parsed } = roundTripBytes(bytes);
  assert.ok(text.indexOf('Relu') < text.indexOf('Neg'));
  assert.equal(
    [...parsed.graph.nodes()].map((each) => each.opType),
    ['Neg', 'Relu'],
  );
});

test('value_info of nobody and repeated value_info keep their places', () => {
  const { text } = roundTripBytes(
    modelOf(
      [1, node('Relu', ['x'], ['y'])],
      [2, 'g'],
      [11, info('x')],
      [12, info('y')],
      [13, info('ghost', [7])],
      [13, info('y')],
      [13, info('y', [9])],
      [13, info('x')],
    ),
  );
  assert.equal(linesOf(text).slice(5, 9), ['float[7] ghost,', 'float[2] y,', 'float[9] y,', 'float[2] x']);
});

test('a value that several lists type differently keeps all its types', () => {
  const inner = message([1, node('Neg', ['x'], ['n'])], [2, 'b'], [12, info('n')], [12, info('x', [3])]);
  const bytes = modelOf(
    [1, node('If', ['x'], ['y', 'z'], [5, message([1, 'then_branch'], [6, inner], [20, 5])])],
    [2, 'g'],
    [11, info('x')],
    [12, message([1, 'y'])],
    [12, info('y', [4])],
    [12, info('x', [5])],
    [13, info('y', [6])],
  );
  roundTripBytes(bytes);
});

test('sparse initializers come back and can be read by nodes', () => {
  const indices = message([1, 1], [2, 7], [8, 'i'], [9, new Uint8Array(8)]);
  const sparse = message([1, floats('s', [1])], [2, indices], [3, 4]);
  const { parsed } = roundTripBytes(modelOf([1, node('Relu', ['s'], ['y'])], [2, 'g'], [12, info('y')], [15, sparse]));
  assert.ok(parsed.graph.value('s')?.isSparse);
});

test('a graph prints alone as it prints in its model', () => {
  const model: Model = openModelBytes(smallModel(), '/nowhere');
  assert.ok(printModel(model).endsWith(`>\n${printGraph(model.graph)}`));
});

test('without directives the text says less but still parses', () => {
  const model = parseGraph('#@ doc "graph"\ng (\n#@ doc "in"\nfloat x) => (x) {\n#@ metadata "a" "b"\ny = Relu (x) }');
  const text = printModel(model, { directives: false });
  assert.not.ok(text.includes('#@'), text);
  assert.ok(text.includes('g (float x) => (x) {\n  y = Relu (x)\n}'), text);
  assert.is(printModel(parseModel(text), { directives: false }), text);
});

test.run();
