/** The functions of the library, in this process. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { fuse, inspect, open, save, verify } from '../../api/index.js';
import { printModel } from '../../ir/index.js';
import { concatFfn, factsOf, parsePipeline, registry, runPipeline } from '../../passes/index.js';
import { TALES12 } from '../helpers/paths.js';
import { suite } from '../helpers/suite.js';
import { inWorkspace } from '../helpers/workspace.js';

const test = suite('api');

test('open and save give back the same file', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'copy.onnx');
    const { files, bytesWritten } = await save(open(TALES12), path);
    assert.ok(readFileSync(path).equals(readFileSync(TALES12)));
    assert.equal(
      files.map((file) => [file.path, file.bytes]),
      [[path, bytesWritten]],
    );
    const external = await save(open(TALES12), path, { external: true });
    assert.equal(external.files.map((file) => file.path).sort(), [path, `${path}.data`]);
    for (const file of external.files) assert.ok(existsSync(file.path), file.path);
  }));

test('inspect takes a path or a model', () => {
  const [byPath, byModel] = [inspect(TALES12), inspect(open(TALES12))];
  assert.is(byPath.layers.length, 12);
  assert.equal(byModel.layers, byPath.layers);
});

test('fuse says what it did, and leaves nothing else behind', () =>
  inWorkspace(async (folder) => {
    const output = join(folder, 'out.onnx');
    const report = await fuse({ input: TALES12, output, removeAttention: [3, 4, 5, 6], verify: false });
    assert.equal(
      factsOf(report, concatFfn).map((run) => run.layers),
      [['3', '4', '5']],
    );
    assert.is(inspect(output).layers.filter((layer) => layer.attention.present).length, 8);
  }));

test('verify compares files with models that were never saved', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'external.onnx');
    await save(open(TALES12), path, { external: true });
    const same = await verify(TALES12, open(path), { batches: [1], tokens: [3, 4], seeds: [1] });
    assert.is(same.worst.relative, 0, 'the weights are found beside the file they came from');
    const model = open(path);
    runPipeline(model, parsePipeline('parallelize-ffn,remove-attention{layers=3}', registry));
    const printed = printModel(model);
    const { worst, onlyReference } = await verify(path, model, { batches: [1], tokens: [3, 4], seeds: [1] });
    assert.ok(worst.relative > 1e-3);
    assert.equal([...onlyReference].sort(), ['present.3.key', 'present.3.value']);
    assert.is(printModel(model), printed, 'comparing changes nothing');
  }));

test.run();
