/** Editing JSON without touching what is not edited. */
import * as fc from 'fast-check';
import * as assert from 'uvu/assert';
import { type Json, JsonText } from '../../../api/basics/json-text.js';
import { suite } from '../../helpers/suite.js';

const json = suite('json text');

const CONFIG = `{
    "model": {
        "layers": [0, 2],
        "eps": 1e-05,
        "theta": 10000.0,
        "types": [
            "a",
            "b"
        ]
    },
    "nan": NaN
}
`;

json('an edit changes nothing but the value', () => {
  const text = new JsonText(CONFIG, 'f.json');
  text.set(['model', 'layers'], [1]);
  text.set(['model', 'types'], ['b']);
  assert.is(text.toString(), CONFIG.replace('[0, 2]', '[1]').replace('            "a",\n', ''));
  assert.ok(text.isChanged);
});

json('equal values are left as they are written', () => {
  const text = new JsonText(CONFIG, 'f.json');
  text.set(['model', 'theta'], 10000);
  text.set(['model', 'types'], ['a', 'b']);
  assert.not(text.isChanged);
});

json('new members come last, in the indentation of the file', () => {
  const text = new JsonText('{\n\t"a": 1\n}', 'f.json');
  text.set(['b'], [{ c: true }]);
  assert.is(text.toString(), '{\n\t"a": 1,\n\t"b": [\n\t\t{\n\t\t\t"c": true\n\t\t}\n\t]\n}');
  const line = new JsonText('{"a":{}}', 'f.json');
  line.set(['a', 'b'], 2);
  assert.is(line.toString(), '{"a":{"b": 2}}');
});

json('members are removed with one comma, wherever they stand', () => {
  for (const [key, left] of [
    ['a', '{ "b": 2, "c": 3 }'],
    ['b', '{ "a": 1, "c": 3 }'],
    ['c', '{ "a": 1, "b": 2 }'],
  ] as const) {
    const text = new JsonText('{ "a": 1, "b": 2, "c": 3 }', 'f.json');
    text.remove([key]);
    assert.is(text.toString(), left);
  }
  const only = new JsonText('{ "a": 1 }', 'f.json');
  only.remove(['a']);
  assert.equal(JSON.parse(only.toString()), {});
  only.remove(['gone']);
});

json('what is not JSON is refused with the file and the line', () => {
  for (const [text, why] of [
    ['{\n "a": }', /f\.json: it is not JSON: line 2: expected a value/],
    ['{"a": 1} x', /expected the end/],
    ['{"a" 1}', /expected ':'/],
    ['["a]', /end of a string/],
    ['{"a": 01}', /is not JSON/],
    ['', /expected a value, found 'the end'/],
    ['['.repeat(1000), /less nesting/],
  ] as const) {
    assert.throws(
      () => new JsonText(text, 'f.json'),
      (error: Error) => why.test(error.message),
      text.slice(0, 20),
    );
  }
});

json('reads and edits whatever JSON.stringify writes', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), fc.constantFrom('', '  ', '\t'), (value, added, indent) => {
      const source = { first: value, 'k"ey': value } as Json;
      const text = new JsonText(JSON.stringify(source, null, indent), 'f.json');
      assert.equal(text.value, JSON.parse(JSON.stringify(source)));
      text.set(['added'], added as Json);
      text.set(['first'], added as Json);
      const expected = JSON.parse(JSON.stringify({ first: added, 'k"ey': value, added }));
      assert.equal(JSON.parse(text.toString()), expected);
      text.remove(['first']);
      assert.equal(Object.keys(JSON.parse(text.toString())), ['k"ey', 'added']);
    }),
    { numRuns: 200 },
  );
});

json('what no config is as large as is refused before it is read', () => {
  assert.throws(() => new JsonText(`[${'0,'.repeat(2 ** 20)}0]`, 'f.json'), /OF_USAGE f\.json: it has \d+ characters/);
});

json.run();
