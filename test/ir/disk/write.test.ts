/** Data files: how many there are, which are copies of input files, where they have holes. */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { layOutModel } from '../../../ir/disk/layout.js';
import { concat, type Model, openModel, readWeight, saveModel, scale, slice, Tensor } from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import { needHoles } from '../../helpers/workspace.js';
import { codeOfAsync, external, floats, modelOf, withFolder } from '../proto/fixtures.js';

const test = suite('ir/disk writing');

const MIB = 2 ** 20;

/** `count` bytes that look random and hold no long run of zeros. */
function noise(count: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(count);
  let state = seed;
  for (let i = 0; i < count; i += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    // Finite floats, small ones.
    bytes.writeUInt32LE(((state & 0x807fffff) | 0x3c000000) >>> 0, i);
  }
  return bytes;
}

interface Place {
  readonly name: string;
  readonly file: string;
  readonly offset: number;
  readonly rows: number;
}
const COLUMNS = 256;

/** A model with external [rows, 256] tensors and one inline vector. */
function modelWith(folder: string, places: readonly Place[]): string {
  const path = join(folder, 'in.onnx');
  const tensors = places.map(({ name, file, offset, rows }) =>
    external(name, [rows, COLUMNS], { location: file, offset, length: rows * COLUMNS * 4 }),
  );
  writeFileSync(path, modelOf(...[...tensors, floats('v', [1, 2, 3])].map((tensor) => [5, tensor] as const)));
  return path;
}

const weightOf = (model: Model, name: string) => {
  const weight = model.graph.value(name)?.initializer?.weight;
  assert.ok(weight);
  return weight;
};

function replace(model: Model, name: string, weight: ReturnType<typeof weightOf>): void {
  const value = model.graph.value(name);
  assert.ok(value);
  model.graph.replaceInitializer(value, new Tensor(name, weight.dtype, weight.dims, weight));
}

const placeOf = (model: Model, name: string) => {
  const weight = weightOf(model, name);
  assert.ok(weight.op === 'source');
  return { offset: weight.offset, source: weight.source };
};

/** Two data files of 2 MiB: a and b in one.bin with padding between them, c and d in two.bin. */
function twoFiles(folder: string): string {
  const half = noise(MIB);
  writeFileSync(join(folder, 'one.bin'), Buffer.concat([half, Buffer.alloc(100), noise(MIB, 2)]));
  writeFileSync(join(folder, 'two.bin'), Buffer.concat([noise(MIB, 3), noise(MIB, 4)]));
  return modelWith(folder, [
    { name: 'a', file: 'one.bin', offset: 0, rows: 1024 },
    { name: 'b', file: 'one.bin', offset: MIB + 100, rows: 1024 },
    { name: 'c', file: 'two.bin', offset: 0, rows: 1024 },
    { name: 'd', file: 'two.bin', offset: MIB, rows: 1024 },
  ]);
}

function checkSame(before: Model, after: Model, names: string): void {
  for (const name of names) {
    assert.ok(Buffer.from(readWeight(weightOf(after, name))).equals(readWeight(weightOf(before, name))), name);
  }
}

test('a data file of which every tensor stays is copied as it is; the others are written anew', () =>
  withFolder(async (folder) => {
    const model = openModel(twoFiles(folder));
    replace(model, 'c', scale(weightOf(model, 'c'), 1, slice(readable(model), 0, 0, COLUMNS)));
    const out = join(folder, 'out.onnx');
    const saved = await saveModel(model, out);
    assert.equal(saved.files.map(({ bytes }) => bytes).slice(0, 2), [2 * MIB + 100, 2 * MIB]);
    assert.ok(readFileSync(`${out}.data`).equals(readFileSync(join(folder, 'one.bin'))));
    const again = openModel(out);
    // Offsets are what they were, also where they were odd.
    assert.is(placeOf(again, 'b').offset, MIB + 100);
    checkSame(model, again, 'abcdv');
    for (const { path } of saved.files) assert.is(statSync(join(folder, path.split('/').at(-1) ?? '')).nlink, 1);
  }));

/** Factors for 256 columns: a row of d. */
function readable(model: Model) {
  const row = weightOf(model, 'd');
  assert.ok(row.op === 'source');
  const [first] = [slice(row, 0, 0, 1)];
  assert.ok(first?.op === 'source');
  return { ...first, dims: [COLUMNS], key: `${first.key}-as-vector` };
}

test('a file is not copied when a tensor of it is not needed any more, however small', () =>
  withFolder(async (folder) => {
    const copies = (model: Model) => layOutModel(model, 'out.onnx').data.map(({ copyOf }) => copyOf !== null);
    const path = twoFiles(folder);
    assert.equal(copies(openModel(path)), [true, true]);
    const without = openModel(path);
    const a = without.graph.value('a');
    assert.ok(a);
    without.graph.replaceInitializer(a, new Tensor('a', 'float', [1], weightOf(without, 'v')));
    assert.equal(copies(without), [true, false]);
    // 64 bytes between two tensors that are not zero: somebody's.
    const data = readFileSync(join(folder, 'one.bin'));
    data[MIB + 50] = 1;
    writeFileSync(join(folder, 'one.bin'), data);
    assert.equal(copies(openModel(path)), [true, false]);
  }));

test('small data files are not kept apart', () =>
  withFolder(async (folder) => {
    for (const name of ['a', 'b', 'c']) writeFileSync(join(folder, `${name}.bin`), noise(4096, name.charCodeAt(0)));
    const places = ['a', 'b', 'c'].map((name) => ({ name, file: `${name}.bin`, offset: 0, rows: 4 }));
    const model = openModel(modelWith(folder, places));
    await saveModel(model, join(folder, 'out.onnx'));
    assert.equal(
      readdirSync(folder).filter((name) => name.startsWith('out')),
      ['out.onnx', 'out.onnx.data'],
    );
    checkSame(model, openModel(join(folder, 'out.onnx')), 'abcv');
  }));

test('data files are no larger than was asked for, unless a tensor is; none is split', () =>
  withFolder(async (folder) => {
    const sizes = [512, 1024, 3072, 512, 256, 1024, 1024];
    let offset = 0;
    const places = sizes.map((rows, i) => {
      const place = { name: String.fromCharCode(97 + i), file: 'in.bin', offset, rows };
      offset += rows * COLUMNS * 4;
      return place;
    });
    writeFileSync(join(folder, 'in.bin'), noise(offset));
    const model = openModel(modelWith(folder, places));
    const out = join(folder, 'out.onnx');
    const limit = 2 * MIB;
    const saved = await saveModel(model, out, { maxShardBytes: limit, hash: true });
    const names = ['out.onnx', 'out.onnx.data', ...[1, 2, 3].map((i) => `out.onnx.data.${i}`)];
    assert.equal(
      readdirSync(folder).filter((name) => name.startsWith('out')),
      names,
    );
    assert.equal(
      names.slice(1).map((name) => statSync(join(folder, name)).size / MIB),
      [1.5, 3, 1.75, 1],
    );
    const again = openModel(out);
    checkSame(model, again, 'abcdefgv');
    for (const name of 'bcdg') assert.is(placeOf(again, name).offset % 65536, 0, name);
    for (const { path, sha256 } of saved.files) {
      const bytes = readFileSync(join(folder, path.split('/').at(-1) ?? ''));
      assert.is(sha256, createHash('sha256').update(bytes).digest('hex'));
    }
    // One file once more, from several; then the limit does not matter.
    mkdirSync(join(folder, 'one'));
    await saveModel(again, join(folder, 'one', 'out.onnx'), { maxShardBytes: 2 ** 40, external: false });
    checkSame(model, openModel(join(folder, 'one', 'out.onnx')), 'abcdefgv');
  }));

test('an input that is one of many output files is not overwritten', () =>
  withFolder(async (folder) => {
    const path = twoFiles(folder);
    writeFileSync(join(folder, 'out.onnx.data.1'), readFileSync(join(folder, 'two.bin')));
    const tensors = [external('a', [1024, COLUMNS], { location: 'out.onnx.data.1', offset: 0, length: MIB })];
    const b = external('b', [1024, COLUMNS], { location: 'one.bin', offset: 0, length: MIB });
    writeFileSync(path, modelOf(...[...tensors, b].map((tensor) => [5, tensor] as const)));
    const save = (options: object) => codeOfAsync(() => saveModel(openModel(path), join(folder, 'out.onnx'), options));
    assert.is(await save({ maxShardBytes: MIB }), 'OF_OUTPUT_IS_INPUT');
    assert.is(await save({}), 'nothing was thrown');
  }));

test('nothing is hashed unless it is asked for', () =>
  withFolder(async (folder) => {
    const { files } = await saveModel(openModel(twoFiles(folder)), join(folder, 'out.onnx'));
    assert.equal(
      files.map(({ sha256 }) => sha256),
      [null, null, null],
    );
  }));

test('a copy of a read-only file can be written to', () =>
  withFolder(async (folder) => {
    const path = twoFiles(folder);
    chmodSync(join(folder, 'one.bin'), 0o444);
    await saveModel(openModel(path), join(folder, 'out.onnx'));
    assert.is(statSync(join(folder, 'out.onnx.data')).mode & 0o200, 0o200);
  }));

test('holes stay holes, in copies and in what is computed', () =>
  withFolder(async (folder) => {
    const size = 256 * MIB;
    for (const file of ['one.bin', 'two.bin']) {
      const descriptor = openSync(join(folder, file), 'w');
      ftruncateSync(descriptor, size);
      for (const at of [0, 100 * MIB + 12, size - 1024]) writeSync(descriptor, noise(1024, at + 1), 0, 1024, at);
      closeSync(descriptor);
    }
    needHoles(join(folder, 'one.bin'));
    const rows = size / 1024;
    const model = openModel(
      modelWith(folder, [
        { name: 'a', file: 'one.bin', offset: 0, rows },
        { name: 'b', file: 'two.bin', offset: 0, rows },
      ]),
    );
    const b = weightOf(model, 'b');
    replace(model, 'b', concat([b, scale(b, 0, { ...slice(b, 1, 0, 1), dims: [rows], key: 'column' } as typeof b)], 1));
    const out = join(folder, 'out.onnx');
    await saveModel(model, out);
    const sizes = ['out.onnx.data', 'out.onnx.data.1'].map((name) => statSync(join(folder, name)));
    assert.equal(
      sizes.map((stats) => stats.size),
      [size, 2 * size],
    );
    for (const { blocks } of sizes) assert.ok(blocks * 512 <= 8 * 128 * 1024, `${blocks * 512} bytes on disk`);
    const again = openModel(out);
    for (const [name, row] of [
      ['a', 0],
      ['a', 100 * 1024],
      ['a', rows - 1],
      ['b', 0],
      ['b', 100 * 1024],
      ['b', rows - 1],
    ] as const) {
      const [found, expected] = [again, model].map((each) =>
        readWeight(slice(weightOf(each, name), 0, row, row + 2 > rows ? rows : row + 2)),
      );
      assert.ok(Buffer.from(found as Uint8Array).equals(expected as Uint8Array), `${name} ${row}`);
    }
  }));

test('progress grows to the whole, also across files', () =>
  withFolder(async (folder) => {
    const seen: [number, number][] = [];
    const onProgress = (done: number, total: number) => seen.push([done, total]);
    const model = openModel(twoFiles(folder));
    const saved = await saveModel(model, join(folder, 'out.onnx'), { onProgress, maxShardBytes: MIB });
    const total = saved.files.reduce((sum, { bytes }) => sum + bytes, 0);
    assert.is(saved.files.length, 5);
    assert.ok(seen.every(([done, all], i) => all === total && done > (seen[i - 1]?.[0] ?? 0)));
    assert.is(seen.at(-1)?.[0], total);
    assert.is(saved.bytesWritten, total);
  }));

test.run();
