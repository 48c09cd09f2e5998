/** Where tensors lie in data files, and what those are called. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type Model, openModel, readWeight, saveModel, slice, Tensor } from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';
import { external, modelOf } from '../proto/fixtures.js';

const test = suite('ir/disk layout');

const LARGE = 2 ** 20;

interface Entry {
  readonly floats: number;
  readonly offset: number;
  readonly more?: Readonly<Record<string, string>>;
}

/** A model over a data file of this name, in which every byte tells its place. */
function modelOver(folder: string, data: string, tensors: Readonly<Record<string, Entry>>): Model {
  const end = Math.max(...Object.values(tensors).map(({ floats, offset }) => offset + 4 * floats));
  writeFileSync(
    join(folder, data),
    Uint8Array.from({ length: end }, (_, i) => (i * 7 + (i >> 8)) % 251),
  );
  const fields = Object.entries(tensors).map(([name, { floats, offset, more }]) => {
    const entries = { location: data, offset, length: 4 * floats, ...more };
    return [5, external(name, [floats], entries)] as const;
  });
  const path = join(folder, 'in.onnx');
  writeFileSync(path, modelOf(...fields));
  return openModel(path);
}

function offsetsOf(path: string): Record<string, number> {
  const values = openModel(path).graph.initializers.map(({ name, initializer }) => {
    const weight = initializer?.weight;
    return [name, weight?.op === 'source' ? weight.offset : -1];
  });
  return Object.fromEntries(values);
}

test('tensors keep the alignment that they had in the input, large ones and small ones', () =>
  inWorkspace(async (folder) => {
    const large = LARGE / 4 + 5;
    const model = modelOver(folder, 'in.onnx.data', {
      gone: { floats: 1003, offset: 0 },
      small: { floats: 300, offset: 4012 + 4 },
      big: { floats: large, offset: 4012 + 4 + 1200 },
      other: { floats: large, offset: 4012 + 4 + 1200 + 4 * large },
    });
    model.graph.removeInitializer(model.graph.value('gone') as never);
    const out = join(folder, 'out.onnx');
    await saveModel(model, out);
    // Nothing was aligned to more than 16 bytes, so nothing is: the file is what the tensors are.
    assert.equal(offsetsOf(out), { small: 0, big: 1200, other: 1200 + 4 * large });
    assert.is(statSync(`${out}.data`).size, 1200 + 8 * large);
    for (const name of ['small', 'big', 'other']) {
      const weight = (from: Model) => readWeight(from.graph.value(name)?.initializer?.weight as never);
      assert.ok(Buffer.from(weight(openModel(out))).equals(Buffer.from(weight(model))), name);
    }
  }));

test('an input in which large tensors begin at pages gives an output in which they do', () =>
  inWorkspace(async (folder) => {
    const model = modelOver(folder, 'in.onnx.data', {
      gone: { floats: 500, offset: 0 },
      small: { floats: 300, offset: 2048 },
      big: { floats: LARGE / 4, offset: 8192 },
    });
    model.graph.removeInitializer(model.graph.value('gone') as never);
    const out = join(folder, 'out.onnx');
    await saveModel(model, out);
    assert.equal(offsetsOf(out), { small: 0, big: 8192 });
  }));

test('what is new begins at 64 KiB only when it is large', () =>
  inWorkspace(async (folder) => {
    const model = modelOver(folder, 'in.onnx.data', { w: { floats: 3 * LARGE, offset: 4 } });
    const whole = model.graph.value('w')?.initializer?.weight as never;
    const add = (name: string, from: number, count: number): void => {
      model.graph.addInitializer(name, new Tensor(name, 'float', [count], slice(whole, 0, from, from + count)));
    };
    add('a', 1, 1000);
    add('b', 2, 1000);
    add('c', 3, LARGE / 4);
    model.graph.removeInitializer(model.graph.value('w') as never);
    const out = join(folder, 'out.onnx');
    await saveModel(model, out, { external: true });
    assert.equal(offsetsOf(out), { a: 0, b: 4032, c: 65536 });
  }));

test('data files are called as in the input, or as transformers.js wants it', () =>
  inWorkspace(async (folder) => {
    const sizes = { a: { floats: 1000, offset: 0 }, b: { floats: 1000, offset: 4000 } };
    const names = async (data: string, options: object): Promise<string[]> => {
      const saved = await saveModel(modelOver(folder, data, sizes), join(folder, 'out.onnx'), options);
      return saved.files.map(({ path }) => path.split(/[\\/]/).at(-1) as string);
    };
    const limit = { maxShardBytes: 5000 };
    assert.equal(await names('in.onnx.data', limit), ['out.onnx.data', 'out.onnx.data.1', 'out.onnx']);
    assert.equal(await names('weights.bin', {}), ['out.onnx.data', 'out.onnx']);
    assert.equal(await names('in.onnx_data', limit), ['out.onnx_data', 'out.onnx_data_1', 'out.onnx']);
    assert.equal(await names('model.onnx_data_2', {}), ['out.onnx_data', 'out.onnx']);
    assert.equal(await names('weights.bin', { dataNames: 'underscore' }), ['out.onnx_data', 'out.onnx']);
  }));

test('what onnxruntime prepacked for one data file is not said of another', () =>
  inWorkspace(async (folder) => {
    const more = { prepacked_0: 'key|4000|64|', prepacked_12: 'key|5000|64|', checksum: 'x', of_others: 'kept' };
    const model = modelOver(folder, 'in.bin', {
      a: { floats: 1000, offset: 0, more },
      b: { floats: 1000, offset: 4096 },
    });
    const out = join(folder, 'out.onnx');
    await saveModel(model, out);
    const header = readFileSync(out, 'latin1');
    assert.not.match(header, /prepacked|checksum/);
    assert.match(header, /of_others/);
  }));

test.run();
