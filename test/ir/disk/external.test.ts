import { linkSync, mkdirSync, symlinkSync, truncateSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import * as assert from 'uvu/assert';
import { type Model, modelSources, openModel, openModelBytes, readWeight, referenceBytes } from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import {
  codeOf,
  encoded,
  external,
  floats,
  info,
  message,
  modelOf,
  node,
  rawBytes,
  withFolder,
} from '../proto/fixtures.js';

const test = suite('ir/disk external data');

/** A model with one external tensor of two floats. */
const modelWith = (entries: Readonly<Record<string, string | number>>): Uint8Array =>
  modelOf([1, node('Relu', ['w'], ['y'])], [5, external('w', [2], entries)], [12, info('y')]);

const bytesOf = (model: Model, name = 'w'): number[] => {
  const weight = model.graph.value(name)?.initializer?.weight;
  return weight ? [...readWeight(weight)] : [];
};

test('reads external data where the entries say', () =>
  withFolder((folder) => {
    mkdirSync(join(folder, 'sub'));
    writeFileSync(join(folder, 'w.bin'), rawBytes(0, 1, 2, 3));
    writeFileSync(join(folder, 'sub', 'w.bin'), rawBytes(5, 6));
    const open = (entries: Readonly<Record<string, string | number>>) => openModelBytes(modelWith(entries), folder);
    assert.equal(bytesOf(open({ location: 'w.bin', offset: 4, length: 8 })), [...rawBytes(1, 2)]);
    assert.equal(bytesOf(open({ location: 'w.bin', offset: 8 })), [...rawBytes(2, 3)]);
    assert.equal(bytesOf(open({ location: 'w.bin', length: 8, checksum: 'abc' })), [...rawBytes(0, 1)]);
    assert.equal(bytesOf(open({ location: 'sub/w.bin' })), [...rawBytes(5, 6)]);
    assert.equal(bytesOf(open({ location: './w.bin' })), [...rawBytes(0, 1)]);
    assert.is(open({ location: 'w.bin' }).graph.value('w')?.initializer?.storage, 'external');
  }));

test('entries that lead nowhere are refused, each with its diagnostic', () =>
  withFolder((folder) => {
    const inside = join(folder, 'inside');
    mkdirSync(inside);
    writeFileSync(join(folder, 'outside.bin'), rawBytes(1, 2));
    writeFileSync(join(inside, 'w.bin'), rawBytes(1, 2));
    symlinkSync(join(folder, 'outside.bin'), join(inside, 'link.bin'));
    symlinkSync(join(inside, 'w.bin'), join(inside, 'good-link.bin'));
    symlinkSync(folder, join(inside, 'up'));
    const code = (entries: Readonly<Record<string, string | number>>) =>
      codeOf(() => openModelBytes(modelWith(entries), inside));
    const cases: readonly [string, Readonly<Record<string, string | number>>][] = [
      ['OF_EXTERNAL_ENTRY', {}],
      ['OF_EXTERNAL_ENTRY', { location: '' }],
      ['OF_EXTERNAL_ENTRY', { location: 'w.bin\0' }],
      ['OF_EXTERNAL_ENTRY', { location: 'w.bin', offset: -4 }],
      ['OF_EXTERNAL_ENTRY', { location: 'w.bin', offset: '0x4' }],
      ['OF_EXTERNAL_ENTRY', { location: 'w.bin', offset: '1.5' }],
      ['OF_EXTERNAL_ENTRY', { location: 'w.bin', length: '99999999999999999999' }],
      ['OF_EXTERNAL_LENGTH', { location: 'w.bin', length: 4 }],
      ['OF_EXTERNAL_SHORT', { location: 'w.bin', offset: 4 }],
      ['OF_EXTERNAL_MISSING', { location: 'nothing.bin' }],
      ['OF_EXTERNAL_MISSING', { location: 'w.bin/x' }],
      ['OF_EXTERNAL_ESCAPES', { location: '../outside.bin' }],
      ['OF_EXTERNAL_ESCAPES', { location: 'a/../../outside.bin' }],
      ['OF_EXTERNAL_ESCAPES', { location: '..\\outside.bin' }],
      ['OF_EXTERNAL_ESCAPES', { location: join(folder, 'outside.bin') }],
      ['OF_EXTERNAL_ESCAPES', { location: 'C:\\w.bin' }],
      ['OF_EXTERNAL_ESCAPES', { location: 'link.bin' }],
      ['OF_EXTERNAL_ESCAPES', { location: 'up/outside.bin' }],
      ['nothing was thrown', { location: 'good-link.bin' }],
    ];
    for (const [expected, entries] of cases) assert.is(code(entries), expected, JSON.stringify(entries));
  }));

test('a data file is opened once, and the model knows its files', () =>
  withFolder((folder) => {
    writeFileSync(join(folder, 'w.bin'), new Uint8Array(64));
    const tensors = [0, 8, 16].map(
      (offset) => [5, external(`w${offset}`, [2], { location: 'w.bin', offset })] as const,
    );
    const path = join(folder, 'model.onnx');
    writeFileSync(path, modelOf(...tensors));
    assert.equal(
      modelSources(openModel(path)).map((source) => source.path),
      [path, join(folder, 'w.bin')],
    );
  }));

test('external data come out with location, offset and length, other keys kept and the old checksum dropped', () =>
  withFolder((folder) => {
    writeFileSync(join(folder, 'w.bin'), rawBytes(0, 1, 2));
    const model = openModelBytes(modelWith({ checksum: 'abc', location: 'w.bin', offset: 4, mystery: 'kept' }), folder);
    const out = encoded(model, () => ({ location: 'new.data', offset: 128, length: 8 }));
    const expected = modelWith({ location: 'new.data', offset: 128, length: 8, mystery: 'kept' });
    assert.ok(out.equals(expected));
    // Moved into the header, nothing of the external form is left.
    assert.ok(encoded(model).includes(Buffer.from(floats('w', [1, 2])).subarray(4)));
    assert.is(openModelBytes(encoded(model), folder).graph.value('w')?.initializer?.storage, 'raw');
  }));

test('a file that changes after it was opened is noticed', () =>
  withFolder((folder) => {
    const data = join(folder, 'w.bin');
    const large = modelOf([
      5,
      message([1, 1024], [2, 1], [8, 'w'], [13, message([1, 'location'], [2, 'w.bin'])], [14, 1]),
    ]);
    const open = (): Model => {
      writeFileSync(data, new Uint8Array(4096));
      return openModelBytes(large, folder);
    };
    const shrunk = open();
    truncateSync(data, 100);
    assert.is(
      codeOf(() => bytesOf(shrunk)),
      'OF_CHANGED',
    );
    const touched = open();
    const [source] = modelSources(touched);
    utimesSync(data, new Date(1e9), new Date(1e9));
    assert.is(
      codeOf(() => source?.checkUnchanged()),
      'OF_CHANGED',
    );
    const removed = open();
    const [gone] = modelSources(removed);
    unlinkSync(data);
    assert.is(
      codeOf(() => gone?.checkUnchanged()),
      'OF_NO_SUCH_FILE',
    );
  }));

test('what is no regular file is refused at once', () =>
  withFolder((folder) => {
    assert.is(
      codeOf(() => openModel(join(folder, 'nothing.onnx'))),
      'OF_NO_SUCH_FILE',
    );
    assert.is(
      codeOf(() => openModel(join(folder, 'nothing', 'model.onnx'))),
      'OF_NO_SUCH_FILE',
    );
    assert.is(
      codeOf(() => openModel(folder)),
      'OF_READ',
    );
  }));

test('data beyond 2 and 4 GiB are read where they are', () =>
  withFolder((folder) => {
    const data = join(folder, 'w.bin');
    writeFileSync(data, '');
    truncateSync(data, 5 * 2 ** 30);
    for (const offset of [2 ** 31 - 4, 2 ** 31, 2 ** 32 - 4, 2 ** 32, 5 * 2 ** 30 - 8]) {
      const model = openModelBytes(modelWith({ location: 'w.bin', offset }), folder);
      assert.equal(bytesOf(model), [...new Uint8Array(8)]);
    }
    assert.is(
      codeOf(() => openModelBytes(modelWith({ location: 'w.bin', offset: 5 * 2 ** 30 - 4 }), folder)),
      'OF_EXTERNAL_SHORT',
    );
  }));

test('an inline model of more than 4 GiB is scanned without reading its tensors', () =>
  withFolder((folder) => {
    // Two tensors of 2.25 GiB each, as holes of a sparse file; the framing around them is real.
    const size = 2.25 * 2 ** 30;
    const lengthOf = (value: number): number[] => {
      const bytes: number[] = [];
      for (let rest = value; ; rest = Math.floor(rest / 128)) {
        if (rest < 128) return [...bytes, rest];
        bytes.push((rest % 128) + 128);
      }
    };
    const tensor = (name: string) => {
      const head = [...message([1, size / 4], [2, 1], [8, name]), 9 * 8 + 2, ...lengthOf(size)];
      return [5 * 8 + 2, ...lengthOf(head.length + size), ...head];
    };
    const first = tensor('a');
    const second = tensor('b');
    const tail = [...message([1, node('Add', ['a', 'b'], ['y'])], [12, info('y')])];
    const graphLength = first.length + second.length + tail.length + 2 * size;
    const start = [...message([1, 10]), 7 * 8 + 2, ...lengthOf(graphLength)];
    const path = join(folder, 'huge.onnx');
    writeFileSync(path, Uint8Array.from([...start, ...first]));
    const secondAt = start.length + first.length + size;
    truncateSync(path, secondAt);
    writeFileSync(path, Uint8Array.from(second), { flag: 'a' });
    truncateSync(path, secondAt + second.length + size);
    writeFileSync(path, Uint8Array.from(tail), { flag: 'a' });
    const model = openModel(path);
    const [source] = modelSources(model);
    assert.ok(source && source.bytesRead < 1024 * 1024, `${source?.bytesRead} bytes read`);
    assert.equal(
      model.graph.initializers.map((value) => value.initializer?.weight?.byteLength),
      [size, size],
    );
    const b = model.graph.value('b')?.initializer?.weight;
    assert.is(b?.op === 'source' && b.offset, secondAt + second.length);
    // A reference to it is small, and says where the tensors lie.
    const reference = referenceBytes(model, folder);
    assert.ok(reference.length < 1000);
    const again = openModelBytes(reference, folder);
    const moved = again.graph.value('b')?.initializer?.weight;
    assert.is(moved?.op === 'source' && moved.offset, secondAt + second.length);
  }));

test('a reference model points into the files of the original and copies only small tensors', () =>
  withFolder((folder) => {
    const path = join(folder, 'model.onnx');
    const large = floats(
      'large',
      Array.from({ length: 300 }, (_, i) => i),
    );
    const typed = message([1, 300], [2, 1], [4, rawBytes(...Array.from({ length: 300 }, (_, i) => -i))], [8, 'typed']);
    writeFileSync(path, modelOf([5, large], [5, floats('small', [1, 2])], [5, typed]));
    writeFileSync(join(folder, 'other'), '');
    const model = openModel(path);
    const reference = openModelBytes(referenceBytes(model, folder), folder);
    assert.equal(
      reference.graph.initializers.map((value) => value.initializer?.storage),
      ['external', 'raw', 'external'],
    );
    for (const name of ['large', 'small', 'typed']) assert.equal(bytesOf(reference, name), bytesOf(model, name));
    const elsewhere = Buffer.from(referenceBytes(model, join(folder, 'sub')));
    assert.ok(elsewhere.includes(relative(join(folder, 'sub'), path)));
    assert.is(dirname(path), folder);
    linkSync(path, join(folder, 'hard.onnx'));
    assert.is(openModel(join(folder, 'hard.onnx')).graph.initializers.length, 3);
  }));

test.run();
