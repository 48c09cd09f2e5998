/** Tensors beyond 2 and 4 GiB, in and out, as sparse files: in the main graph, in a subgraph, beside inline ones. */
import { closeSync, ftruncateSync, openSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import {
  allInitializers,
  concat,
  type Model,
  openModel,
  readWeight,
  saveModel,
  scale,
  slice,
  Tensor,
} from '../../../ir/index.js';
import { suite } from '../../helpers/suite.js';
import { needHoles } from '../../helpers/workspace.js';
import { external, floats, info, message, modelOf, node, rawBytes, withFolder } from '../proto/fixtures.js';

const test = suite('ir/disk large tensors');

const GIB = 2 ** 30;
const COLUMNS = 256;
const ROW = 4 * COLUMNS;
/** Rows of a tensor of 4.5 GiB, and of one of 2.25 GiB. */
const LARGE = (4.5 * GIB) / ROW;
const MIDDLE = (2.25 * GIB) / ROW;

/** Writes a sparse file whose float32 rows `rows` hold their own number, in every column. */
function sparse(path: string, size: number, rows: readonly number[]): void {
  const file = openSync(path, 'w');
  ftruncateSync(file, size);
  for (const row of rows) writeSync(file, rawBytes(...new Array<number>(COLUMNS).fill(row + 1)), 0, ROW, row * ROW);
  closeSync(file);
}

function weightOf(model: Model, name: string) {
  const tensor = [...allInitializers(model)].find((each) => each.name === name);
  assert.ok(tensor?.weight, `no tensor ${name}`);
  return tensor.weight;
}

/** Row `row` of a [rows, 256] tensor. */
function rowOf(model: Model, name: string, row: number): Float32Array {
  const bytes = readWeight(slice(weightOf(model, name), 0, row, row + 1));
  return new Float32Array(bytes.buffer, bytes.byteOffset, COLUMNS);
}

test('tensors over 2 and over 4 GiB go in and out, computed or not, in subgraphs too, beside inline ones', () =>
  withFolder(async (folder) => {
    // The middle tensor lies in front, so that the large one crosses 4 GiB and ends at 6.75.
    const rows = [0, 1, MIDDLE - 1, MIDDLE, MIDDLE + 1, 4 * 2 ** 20 - 1, 4 * 2 ** 20, MIDDLE + LARGE - 1];
    const size = (MIDDLE + LARGE) * ROW;
    sparse(join(folder, 'w.bin'), size, rows);
    needHoles(join(folder, 'w.bin'));
    const gamma = Array.from({ length: COLUMNS }, (_, i) => 1 + i / 256);
    const then = message(
      [1, node('Identity', ['middle'], ['then_y'])],
      [5, external('middle', [MIDDLE, COLUMNS], { location: 'w.bin', offset: 0, length: MIDDLE * ROW })],
      [5, floats('inner', gamma)],
      [12, info('then_y', [MIDDLE, COLUMNS])],
    );
    const other = message([1, node('Identity', ['large'], ['else_y'])], [12, info('else_y', [LARGE, COLUMNS])]);
    const branch = (name: string, graph: Uint8Array) => [5, message([1, name], [20, 5], [6, graph])] as const;
    const path = join(folder, 'in.onnx');
    writeFileSync(
      path,
      modelOf(
        [1, node('If', ['c'], ['y'], branch('then_branch', then), branch('else_branch', other))],
        [5, external('large', [LARGE, COLUMNS], { location: 'w.bin', offset: MIDDLE * ROW, length: LARGE * ROW })],
        [5, floats('gamma', gamma)],
        [11, message([1, 'c'], [2, message([1, message([1, 9])])])],
        [12, info('y', [LARGE, COLUMNS])],
      ),
    );
    const model = openModel(path);
    const { graph } = model;
    // gamma times the rows of both, one after the other: 6.75 GiB.
    const joined = concat([weightOf(model, 'middle'), weightOf(model, 'large')], 0);
    const scaled = scale(joined, 1, weightOf(model, 'gamma'));
    graph.addInitializer('joined', new Tensor('joined', 'float', scaled.dims, scaled));

    const out = join(folder, 'out.onnx');
    const saved = await saveModel(model, out);
    const again = openModel(out);
    // The input's file as it is, and what was computed.
    assert.equal(
      saved.files.slice(0, -1).map(({ bytes }) => bytes),
      [size, size],
    );
    for (const name of ['out.onnx.data', 'out.onnx.data.1']) {
      assert.ok(statSync(join(folder, name)).blocks * 512 < 64 * 2 ** 20, `${name} has lost its holes`);
    }
    const storages = [...allInitializers(again)].map(({ name, storage }) => `${name} ${storage}`);
    assert.equal(storages.sort(), ['gamma raw', 'inner raw', 'joined external', 'large external', 'middle external']);
    for (const row of rows) {
      const [name, at] = row < MIDDLE ? (['middle', row] as const) : (['large', row - MIDDLE] as const);
      const expected = new Float32Array(COLUMNS).fill(row + 1);
      assert.equal(rowOf(again, name, at), expected, `${name} ${at}`);
      assert.equal(
        rowOf(again, 'joined', row),
        expected.map((x, i) => x * (gamma[i] as number)),
        `joined ${row}`,
      );
    }
    for (const row of [2, MIDDLE - 2, MIDDLE + 2, MIDDLE + LARGE - 2]) {
      assert.equal(rowOf(again, 'joined', row), new Float32Array(COLUMNS), `zeros in row ${row}`);
    }
  }));

test.run();
