import { createHash } from 'node:crypto';
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import * as assert from 'uvu/assert';
import { layOutModel } from '../../../ir/disk/layout.js';
import {
  concat,
  type Model,
  openModel,
  readWeight,
  reshape,
  saveModel,
  scale,
  slice,
  stageModel,
  Tensor,
  transpose,
} from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import { codeOf, codeOfAsync, external, floats, info, message, modelOf, node, withFolder } from '../proto/fixtures.js';

const test = suite('ir/disk staging');

const ramp = (count: number): number[] => Array.from({ length: count }, (_, i) => (i % 251) - 125);
const names = (folder: string): string[] => readdirSync(folder).sort();

/** y = x * w with an inline w of 512 floats. */
function inlineModel(folder: string, name = 'in.onnx'): string {
  const path = join(folder, name);
  const multiply = node('Mul', ['x', 'w'], ['y']);
  writeFileSync(path, modelOf([1, multiply], [5, floats('w', ramp(512), [16, 32])], [11, info('x')], [12, info('y')]));
  return path;
}

/** The same with w, and a small s, in in.data. */
function externalModel(folder: string): string {
  const path = join(folder, 'in.onnx');
  const data = new Uint8Array(Float32Array.from(ramp(512)).buffer);
  writeFileSync(join(folder, 'in.data'), Buffer.concat([new Uint8Array(4096), data]));
  const multiply = node('Mul', ['x', 'w'], ['y']);
  const w = external('w', [16, 32], { location: 'in.data', offset: 4096, length: 2048 });
  const s = external('s', [4], { location: 'in.data', offset: 4096, length: 16 });
  writeFileSync(path, modelOf([1, multiply], [5, w], [5, s], [11, info('x')], [12, info('y')]));
  return path;
}

const weightOf = (model: Model, name = 'w') => {
  const weight = model.graph.value(name)?.initializer?.weight;
  assert.ok(weight);
  return weight;
};

test('an unchanged model is saved byte for byte, and what is reported is what was written', () =>
  withFolder(async (folder) => {
    const path = inlineModel(folder);
    const out = join(folder, 'out.onnx');
    const progress: number[] = [];
    const saved = await saveModel(openModel(path), out, { hash: true, onProgress: (done) => progress.push(done) });
    const bytes = readFileSync(path);
    assert.ok(readFileSync(out).equals(bytes));
    assert.equal(
      saved.files.map(({ bytes: size, sha256 }) => [size, sha256]),
      [[bytes.length, createHash('sha256').update(bytes).digest('hex')]],
    );
    assert.is(saved.bytesWritten, bytes.length);
    assert.is(progress.at(-1), bytes.length);
    assert.equal(names(folder), ['in.onnx', 'out.onnx']);
  }));

test('external tensors stay external, in one new file, at aligned offsets', () =>
  withFolder(async (folder) => {
    const model = openModel(externalModel(folder));
    const out = join(folder, 'out.onnx');
    const saved = await saveModel(model, out, { hash: true });
    assert.equal(names(folder), ['in.data', 'in.onnx', 'out.onnx', 'out.onnx.data']);
    assert.is(
      saved.files[0]?.sha256,
      createHash('sha256')
        .update(readFileSync(`${out}.data`))
        .digest('hex'),
    );
    const again = openModel(out);
    for (const name of ['w', 's']) {
      const weight = weightOf(again, name);
      assert.ok(weight.op === 'source' && weight.offset % 64 === 0);
      assert.equal([...readWeight(weight)], [...readWeight(weightOf(model, name))]);
    }
    assert.is(saved.bytesRead, 2048 + 16);
  }));

test('the user decides where weights go', () =>
  withFolder(async (folder) => {
    const inline = openModel(inlineModel(folder));
    const out = join(folder, 'out.onnx');
    await saveModel(inline, out, { external: true });
    const moved = openModel(out);
    assert.is(moved.graph.value('w')?.initializer?.storage, 'external');
    assert.equal([...readWeight(weightOf(moved))], [...readWeight(weightOf(inline))]);
    const back = join(folder, 'back.onnx');
    await saveModel(moved, back, { external: false });
    assert.ok(readFileSync(back).equals(readFileSync(join(folder, 'in.onnx'))));
    assert.not(existsSync(`${back}.data`));
  }));

test('new tensors go where the others are; small ones stay in the header; equal ones share their bytes', () =>
  withFolder((folder) => {
    const model = openModel(externalModel(folder));
    const w = weightOf(model);
    model.graph.addInitializer('new', new Tensor('new', 'float', [16, 16], slice(w, 1, 0, 16)));
    model.graph.addInitializer('twin', new Tensor('twin', 'float', [16, 32], w));
    model.graph.addInitializer('tiny', new Tensor('tiny', 'float', [1, 32], slice(w, 0, 0, 1)));
    const plan = layOutModel(model, 'out.onnx');
    const names = plan.data[0]?.pieces.map(({ name }) => name).filter((name) => name !== '');
    assert.equal(names, ['w', 's', 'new']);
    const inline = openModel(inlineModel(folder, 'inline.onnx'));
    inline.graph.addInitializer('new', new Tensor('new', 'float', [32, 16], transpose(weightOf(inline))));
    assert.equal(layOutModel(inline, 'out.onnx').data, []);
  }));

test('large tensors begin at 64 KiB', () =>
  withFolder((folder) => {
    const data = join(folder, 'in.data');
    writeFileSync(data, '');
    truncateSync(data, 8 * 2 ** 20);
    const large = { location: 'in.data', offset: 0, length: 2 ** 20 };
    const tensors = [external('s', [4], { location: 'in.data', offset: 0 }), external('l', [2 ** 18], large)];
    writeFileSync(join(folder, 'in.onnx'), modelOf(...tensors.map((tensor) => [5, tensor] as const)));
    const plan = layOutModel(openModel(join(folder, 'in.onnx')), 'out.onnx');
    assert.equal(
      plan.data[0]?.pieces.map(({ chunk }) => chunk.byteLength),
      [16, 65536 - 16, 2 ** 20],
    );
  }));

test("a header beyond protobuf's limit goes external by itself; the user who forbids it is told", () =>
  withFolder((folder) => {
    const data = join(folder, 'w.bin');
    writeFileSync(data, '');
    truncateSync(data, 2_100_000_000);
    const path = join(folder, 'in.onnx');
    writeFileSync(path, modelOf([5, external('w', [525_000_000], { location: 'w.bin' })]));
    const model = openModel(path);
    const weight = weightOf(model);
    model.graph.replaceInitializer(model.graph.initializers[0]!, new Tensor('w', 'float', weight.dims, weight));
    assert.is(layOutModel(model, 'out.onnx').data[0]?.byteLength, 2_100_000_000);
    assert.is(
      codeOf(() => layOutModel(model, 'out.onnx', { external: false })),
      'OF_USAGE',
    );
  }));

test('expressions are computed while they are written', () =>
  withFolder(async (folder) => {
    const model = openModel(externalModel(folder));
    const w = weightOf(model);
    const gamma = reshape(slice(w, 0, 0, 1), [32]);
    assert.ok(gamma);
    const wide = concat([w, scale(w, 0, slice(gamma, 0, 0, 16)), slice(w, 1, 3, 9)], 1);
    model.graph.replaceInitializer(model.graph.value('w')!, new Tensor('w', 'float', wide.dims, wide));
    const out = join(folder, 'out.onnx');
    await saveModel(model, out);
    assert.equal([...readWeight(weightOf(openModel(out)))], [...readWeight(wide)]);
  }));

test('the same model gives the same bytes', () =>
  withFolder(async (folder) => {
    const path = externalModel(folder);
    const hashes = [];
    for (const name of ['a', 'b']) {
      mkdirSync(join(folder, name));
      const { files } = await saveModel(openModel(path), join(folder, name, 'out.onnx'), { hash: true });
      hashes.push(files.map(({ sha256 }) => sha256));
    }
    assert.equal(hashes[0], hashes[1]);
  }));

test('nothing is in place before the commit, and nothing is left after a discard', () =>
  withFolder(async (folder) => {
    const out = join(folder, 'out.onnx');
    const staged = await stageModel(openModel(externalModel(folder)), out);
    assert.not(existsSync(out));
    assert.is(dirname(dirname(staged.headerPath)), folder);
    assert.is(basename(staged.headerPath), 'out.onnx');
    // The staged model can be opened where it is.
    assert.is(openModel(staged.headerPath).graph.initializers.length, 2);
    await staged.discard();
    assert.equal(names(folder), ['in.data', 'in.onnx']);
  }));

test('a failing write leaves the old output as it was and no temporary files', () =>
  withFolder(async (folder) => {
    const path = externalModel(folder);
    const out = join(folder, 'out.onnx');
    await saveModel(openModel(path), out);
    const before = names(folder).map((name) => readFileSync(join(folder, name)));
    const model = openModel(path);
    const w = weightOf(model);
    // Read it once, then cut it short.
    truncateSync(join(folder, 'in.data'), 4100);
    assert.is(await codeOfAsync(() => saveModel(model, out)), 'OF_CHANGED');
    assert.ok(w);
    truncateSync(join(folder, 'in.data'), 6144);
    assert.equal(names(folder), ['in.data', 'in.onnx', 'out.onnx', 'out.onnx.data']);
    for (const [i, name] of names(folder).entries()) {
      if (name.startsWith('out')) assert.ok(readFileSync(join(folder, name)).equals(before[i] as Buffer));
    }
  }));

test('a commit that fails half-way puts the old data back', () =>
  withFolder(async (folder) => {
    const out = join(folder, 'out.onnx');
    const staged = await stageModel(openModel(externalModel(folder)), out);
    writeFileSync(`${out}.data`, 'old data');
    mkdirSync(out);
    writeFileSync(join(out, 'in the way'), '');
    assert.is(await codeOfAsync(() => staged.commit()), 'OF_WRITE');
    assert.is(readFileSync(`${out}.data`, 'utf8'), 'old data');
    assert.equal(names(folder), ['in.data', 'in.onnx', 'out.onnx', 'out.onnx.data']);
  }));

test('inputs are never overwritten, through whatever name', () =>
  withFolder(async (folder) => {
    const path = externalModel(folder);
    const code = (out: string) => codeOfAsync(() => saveModel(openModel(path), out));
    symlinkSync(path, join(folder, 'symlink.onnx'));
    linkSync(path, join(folder, 'hardlink.onnx'));
    linkSync(join(folder, 'in.data'), join(folder, 'new.onnx.data'));
    symlinkSync(folder, join(folder, 'again'));
    for (const name of ['in.onnx', 'in.data', 'symlink.onnx', 'hardlink.onnx', 'new.onnx', './in.onnx']) {
      assert.is(await code(join(folder, name)), 'OF_OUTPUT_IS_INPUT', name);
    }
    assert.is(await code(`${folder}/again/in.onnx`), 'OF_OUTPUT_IS_INPUT');
    // Also when no weight of the model lies in that file any more.
    const model = openModel(path);
    for (const value of model.graph.initializers) {
      model.graph.replaceInitializer(value, new Tensor(value.name, 'float', [0], null));
    }
    assert.is(await codeOfAsync(() => saveModel(model, join(folder, 'in.data'))), 'OF_OUTPUT_IS_INPUT');
  }));

test('outputs that cannot be are refused before anything is written', () =>
  withFolder(async (folder) => {
    const path = inlineModel(folder);
    const code = (out: string) => codeOfAsync(() => saveModel(openModel(path), out));
    assert.is(await code(join(folder, 'nowhere', 'out.onnx')), 'OF_USAGE');
    assert.is(await code(join(path, 'out.onnx')), 'OF_USAGE');
    mkdirSync(join(folder, 'dir.onnx'));
    assert.is(await code(join(folder, 'dir.onnx')), 'OF_USAGE');
  }));

test('what a dead run left behind for the same target is removed, what a living one makes is not', () =>
  withFolder(async (folder) => {
    const path = inlineModel(folder);
    const random = '0123456789ab';
    // A process id beyond every system's limit is dead.
    const dead = `.out.onnx.onnx-fuse-2000000000-${random}`;
    const kept = [
      `.out.onnx.onnx-fuse-${process.ppid}-${random}`,
      `.other.onnx.onnx-fuse-2000000000-${random}`,
      '.out.onnx.onnx-fuse-notes',
    ];
    for (const name of [dead, ...kept]) mkdirSync(join(folder, name));
    await saveModel(openModel(path), join(folder, 'out.onnx'));
    assert.equal(names(folder), [...kept, 'in.onnx', 'out.onnx'].sort());
  }));

test('a weight of many bands comes out whole', () =>
  withFolder(async (folder) => {
    // 96 MiB: twelve bands, through a transposition, a scaling and a concatenation along columns.
    const rows = 4096;
    const columns = 2048;
    const data = Buffer.alloc(rows * columns * 4);
    for (let i = 0; i < rows * columns; i++) data.writeFloatLE((i % 8191) - 4095, i * 4);
    writeFileSync(join(folder, 'in.data'), data);
    const path = join(folder, 'in.onnx');
    const tensor = message(
      [1, rows],
      [1, columns],
      [2, 1],
      [8, 'w'],
      [13, message([1, 'location'], [2, 'in.data'])],
      [14, 1],
    );
    writeFileSync(path, modelOf([5, tensor], [5, floats('by', ramp(rows))]));
    const model = openModel(path);
    const w = weightOf(model);
    const wide = concat([scale(w, 0, weightOf(model, 'by')), w, slice(w, 1, 0, columns)], 1);
    model.graph.replaceInitializer(model.graph.value('w')!, new Tensor('w', 'float', wide.dims, wide));
    const turned = transpose(slice(w, 1, 100, 300));
    model.graph.addInitializer('turned', new Tensor('turned', 'float', turned.dims, turned));
    const out = join(folder, 'out.onnx');
    await saveModel(model, out);
    const again = openModel(out);
    const got = new Float32Array(readWeight(weightOf(again)).buffer);
    const by = ramp(rows);
    for (let i = 0; i < 5000; i++) {
      const row = (i * 7919) % rows;
      const column = (i * 104729) % columns;
      const value = ((row * columns + column) % 8191) - 4095;
      assert.is(got[row * 3 * columns + column], Math.fround(value * (by[row] as number)));
      assert.is(got[row * 3 * columns + columns + column], value);
      assert.is(got[row * 3 * columns + 2 * columns + column], value);
    }
    const flipped = new Float32Array(readWeight(weightOf(again, 'turned')).buffer);
    for (let i = 0; i < 5000; i++) {
      const row = (i * 7919) % rows;
      const column = i % 200;
      assert.is(flipped[column * rows + row], ((row * columns + column + 100) % 8191) - 4095);
    }
  }));

test('memory is bounded by the band, not by the model', () =>
  withFolder(async (folder) => {
    const size = 768 * 2 ** 20;
    writeFileSync(join(folder, 'in.data'), '');
    truncateSync(join(folder, 'in.data'), size);
    const path = join(folder, 'in.onnx');
    writeFileSync(path, modelOf([5, external('w', [1024, size / 4096], { location: 'in.data' })]));
    const model = openModel(path);
    const before = process.memoryUsage().rss;
    let peak = 0;
    const onProgress = () => {
      peak = Math.max(peak, process.memoryUsage().rss);
    };
    const staged = await stageModel(model, join(folder, 'out.onnx'), { onProgress });
    assert.is(staged.files[0]?.bytes, size);
    assert.ok(peak - before < 96 * 2 ** 20, `${Math.round((peak - before) / 2 ** 20)} MiB more`);
  }));

test.run();
