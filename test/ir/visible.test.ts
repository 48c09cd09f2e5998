import * as assert from 'uvu/assert';
import { parseModel, printModel, visible, visibleData, visibleLines } from '../../ir/index.js';
import { EVIL } from '../helpers/evil.js';
import { suite } from '../helpers/suite.js';

const test = suite('ir/visible');

test('what a reader would not see is shown as its code', () => {
  assert.is(
    visible(EVIL),
    '\\u001b[2J\\u001b]0;x\\u0007\\u000d\\u000afake: all is well\\u202egnp.exe\\u2066\\u200b\\u009b31m\\udb40\\udc41\\ud800',
  );
  assert.is(visible('größer 日本語 é́ 👍🏽 a\u00a0b'), 'größer 日本語 é́ 👍🏽 a\u00a0b');
});

test('lines and tabs of a text stay, and nothing else that moves', () => {
  assert.is(visibleLines('a\tb\nc\rd\u001b'), 'a\tb\nc\\u000dd\\u001b');
  // JSON says the same by such an escape, so a JSON text stays the same value.
  assert.is(JSON.parse(visibleLines(JSON.stringify({ [EVIL]: EVIL })))[EVIL], EVIL);
});

test('every text in a piece of data becomes visible, wherever it is', () => {
  const data = { list: ['a\u001b', 7, null], [`key\n`]: { deep: new Map([['x\r', 'y\u202e']]) }, __proto__: null };
  assert.equal(visibleData(data), {
    list: ['a\\u001b', 7, null],
    'key\\u000a': { deep: new Map([['x\\u000d', 'y\\u202e']]) },
  });
});

test('the printed form of a model has visible names, and gives the same names back', () => {
  const text =
    '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { [n] a = Neg(x)  y = Foo <s = "t"> (a) }';
  const model = parseModel(text);
  const [first, second] = [...model.graph.nodes()];
  const name = EVIL.replace('\ud800', '');
  const made = model.graph.addNode(
    { opType: 'Neg', name, inputs: [first?.output(0) ?? null], outputs: [name] },
    { before: second as never },
  );
  second?.setInput(0, made.output(0));
  second?.setAttribute('s', { kind: 'string', value: new TextEncoder().encode(`one\ntwo\u001b"\\u001b`) });
  model.producerName = name;
  const printed = printModel(model);
  assert.is(visibleLines(printed), printed);
  assert.not.match(printed, /^fake/m);
  const again = parseModel(printed);
  assert.is(again.producerName, name);
  assert.ok(again.graph.value(name));
  assert.is([...again.graph.nodes()].at(-1)?.stringAttribute('s'), `one\ntwo\u001b"\\u001b`);
  assert.is(printModel(again), printed);
});

test.run();
