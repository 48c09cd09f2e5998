/** Names in a model are any text. Whatever they say, a terminal shows them and does not do it. */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { applyingCommand, sharedPath } from '../../cli/text/command-line.js';
import { openModel, saveModel, visible } from '../../ir/index.js';
import { EVIL } from '../helpers/evil.js';
import { writeSmallDecoder } from '../helpers/small-decoder.js';
import { skip, suite } from '../helpers/suite.js';
import { inWorkspace, type Outcome, runCli } from '../helpers/workspace.js';
import { floats, modelOf } from '../ir/proto/fixtures.js';

const test = suite('names');

const NAME = EVIL.replace('\ud800', '');

/** A small decoder whose producer, nodes, caches and logits have such a name. */
async function evilModel(folder: string): Promise<string> {
  const model = openModel(writeSmallDecoder(folder));
  model.producerName = NAME;
  model.metadata = [[NAME, NAME]];
  model.graph.name = NAME;
  for (const value of [...model.graph.inputs, ...model.graph.outputs]) {
    if (/logits|past_key_values\.4|present\.4/.test(value.name)) model.graph.renameValue(value, `${value.name}${NAME}`);
  }
  const path = join(folder, 'evil.onnx');
  await saveModel(model, path);
  return path;
}

/** Nothing that moves a cursor, hides or turns; and no line that a name began. */
function shows(outcome: Outcome, isNamed = true): void {
  for (const text of [outcome.stdout, outcome.stderr]) {
    assert.is(text.split('\n').map(visible).join('\n'), text);
    assert.not.match(text, /^\s*fake/m);
  }
  if (isNamed) assert.match(outcome.stdout + outcome.stderr, /\\u001b\[2J/);
}

test('inspect, print, verify, golden and a fusion show names instead of doing what they say', () =>
  inWorkspace(async (folder) => {
    const path = await evilModel(folder);
    const out = join(folder, 'out.onnx');
    shows(await runCli('inspect', path));
    shows(await runCli('inspect', path, '--json'));
    shows(await runCli('print', path));
    shows(await runCli(path, out, '--remove-attention', '4', '--no-verify'), false);
    const compared = await runCli('verify', path, out);
    assert.is(compared.code, 0, compared.stderr);
    shows(compared);
    shows(await runCli('verify', path, out, '--json'));
    const golden = join(folder, 'golden');
    assert.is((await runCli('golden', path, golden, '--accept')).code, 0);
    shows(await runCli('golden', out, golden));
  }));

test('a command line to be copied is read back by a shell as the names that it is made of', () => {
  const names = ['a b.onnx', "it's; rm -rf ~ #.onnx", '$HOME `id`.onnx', 'C:/models/plain-1.2_x.onnx', ''];
  for (const name of names) {
    const line = applyingCommand(name, 'plan.json').replace(/^onnx-fuse/, 'printf "%s\\n"');
    const { stdout, status } = spawnSync('sh', ['-c', line], { encoding: 'utf8' });
    if (status !== 0) skip('there is no sh here');
    assert.is(stdout, [name, 'out.onnx', '--plan', 'plan.json', ''].join('\n'));
  }
  assert.is(applyingCommand('smol', 'p.json', true), 'onnx-fuse smol out --plan p.json');
  // What others read does not say where our files are.
  assert.is(sharedPath(resolve('/home/somebody/secret/model.onnx')), 'model.onnx');
  assert.is(sharedPath('models/model.onnx'), 'models/model.onnx');
});

test('an error is one line, whatever is in the name that it is about', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'broken.onnx');
    writeFileSync(path, modelOf([5, floats(NAME, [1, 2, 3], [2])]));
    for (const argv of [
      ['inspect', path],
      [path, join(folder, 'out.onnx')],
    ]) {
      const found = await runCli(...argv);
      assert.is(found.code, 1);
      assert.is(found.stderr.split('\n').length, 2, found.stderr);
      shows(found);
    }
  }));

test.run();
