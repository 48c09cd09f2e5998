/** strip-metadata in the bytes of files: also where the core has no room for what stands there. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { openModelBytes } from '../../../ir/index.js';
import { factsOf, parsePipeline, registry, runPipeline, stripMetadata } from '../../../passes/index.js';
import { GOLDEN_ROOT } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { encoded, type FieldSpec, message, node, rawBytes } from '../../ir/proto/fixtures.js';

const test = suite('strip-metadata');
const SECRET = 'File "/home/me/secret.py", line 7, in forward';

/** A field with a doc string and a metadata entry that tell, and an entry that does not. */
function telling(number: number, doc: number, metadata: number, ...fields: FieldSpec[]): FieldSpec {
  const entries: FieldSpec[] = [
    [metadata, message([1, 'trace'], [2, SECRET])],
    [metadata, message([1, 'scope'], [2, 'layers.0'])],
  ];
  return [number, message(...fields, [doc, SECRET], ...entries)];
}

/** Every message that has doc strings or metadata: 12 places, of which attributes have a doc string only. */
function tellingModel(): Uint8Array {
  const type = message([1, message([1, 1], [2, message([1, message([1, 2])])])]);
  const weight = (name: string): FieldSpec[] => [
    [1, 2],
    [2, 1],
    [8, name],
    [9, rawBytes(1, 2)],
  ];
  const attribute = message([1, 'value'], [20, 4], [13, SECRET], telling(5, 12, 16, ...weight('')));
  const made = telling(1, 6, 9, [2, 'c'], [4, 'Constant'], [5, attribute]);
  const graph = message(
    made,
    [1, node('Add', ['x', 'w'], ['t'])],
    [1, node('Add', ['t', 'c'], ['y'])],
    [2, 'g'],
    telling(5, 12, 16, ...weight('w')),
    [10, SECRET],
    telling(11, 3, 4, [1, 'x'], [2, type]),
    telling(12, 3, 4, [1, 'y'], [2, type]),
    telling(13, 3, 4, [1, 't'], [2, type]),
    // A second entry of a value, and one for a name that nobody defines.
    telling(13, 3, 4, [1, 't'], [2, type]),
    telling(13, 3, 4, [1, 'nobody'], [2, type]),
    [16, message([1, 'trace'], [2, SECRET])],
  );
  return message(
    [1, 10],
    [6, SECRET],
    [7, graph],
    [8, message([1, ''], [2, 21])],
    [14, message([1, 'trace'], [2, SECRET])],
  );
}

function occurrences(bytes: Uint8Array, text: string): number {
  return Buffer.from(bytes).toString('latin1').split(text).length - 1;
}

test('no message of a file goes on telling, and what does not tell stays', () => {
  const bytes = tellingModel();
  const model = openModelBytes(bytes, '/nowhere');
  const [secrets, others] = [occurrences(bytes, SECRET), occurrences(bytes, 'layers.0')];
  assert.ok(secrets >= 20 && others >= 8, `${secrets} and ${others}`);
  const result = runPipeline(model, parsePipeline('strip-metadata', registry));
  const out = encoded(model);
  assert.is(occurrences(out, SECRET), 0);
  assert.is(occurrences(out, 'layers.0'), others);
  assert.equal(factsOf(result, stripMetadata), [
    { kind: 'stack-traces', texts: secrets, bytes: secrets * SECRET.length },
  ]);
  assert.ok(result.changed);
  const again = openModelBytes(out, '/nowhere');
  assert.not(runPipeline(again, parsePipeline('strip-metadata', registry)).changed, 'something is left to strip');
  assert.equal(encoded(again), out);
});

test('what is to be kept stays to the byte', () => {
  const bytes = tellingModel();
  const model = openModelBytes(bytes, '/nowhere');
  assert.not(runPipeline(model, parsePipeline('strip-metadata{stack-traces=keep}', registry)).changed);
  assert.ok(encoded(model).equals(bytes));
});

test('no model of the repository tells where it was made', () => {
  const folder = join(GOLDEN_ROOT, 'models');
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.onnx'))) {
    const bytes = readFileSync(join(folder, file));
    for (const word of ['/home/', '/root/', '/usr/', '/tmp/', 'site-packages', 'File "']) {
      assert.not(bytes.includes(word), `${file} holds '${word}'`);
    }
  }
});

test.run();
