/** `--requantize`: block-quantised FFNs take up their norms, and the output says what that did to the numbers. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Report } from '../../../api/fuse/report.js';
import { loadFloats, storeFloats } from '../../../ir/disk/kernels/kernel.js';
import { inlineWeight, type Model, openModel, readWeight, saveModel, Tensor, type Weight } from '../../../ir/index.js';
import { concatFfn, factsOf, layersOf, requantizeFfn } from '../../../passes/index.js';
import { TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('requantize');

const BLOCK = 32;

/** The FFN weights of a model in blocks of `bits`, symmetric. */
function quantised(model: Model, bits: 4 | 8): Model {
  const { graph } = model;
  model.requireDomain('com.microsoft', 1);
  for (const { ffn } of layersOf(model).layers) {
    for (const { node, matrix, output } of ffn ? [...ffn.ffn.linears, ffn.ffn.down] : []) {
      const [k, n] = [matrix.inWidth, matrix.outWidth];
      const { blocks, scales } = blocksOf(matrix.dense as Weight, bits);
      const add = (suffix: string, weight: Weight) => {
        const name = graph.names.fresh(`${output.name}.${suffix}`);
        return graph.addInitializer(name, new Tensor(name, weight.dtype, weight.dims, weight));
      };
      const int = (value: number) => ({ kind: 'int', value: BigInt(value) }) as const;
      const made = graph.addNode(
        {
          opType: 'MatMulNBits',
          domain: 'com.microsoft',
          name: node.name,
          inputs: [node.input(0), add('quantised', blocks), add('scales', scales)],
          outputs: [{ name: output.name, type: output.type }],
          attributes: { K: int(k), N: int(n), bits: int(bits), block_size: int(BLOCK) },
        },
        { before: node },
      );
      graph.replaceUses(output, made.output(0) as typeof output);
      graph.removeNode(node);
    }
  }
  return model;
}

/** A dense [in, out] as MatMulNBits wants it. */
function blocksOf(dense: Weight, bits: 4 | 8): { blocks: Weight; scales: Weight } {
  const [k = 0, n = 0] = dense.dims;
  const bytes = readWeight(dense);
  const values = new Float64Array(k * n);
  loadFloats(dense.dtype, new DataView(bytes.buffer, bytes.byteOffset), 0, values.length, values, 0);
  const count = k / BLOCK;
  const middle = 2 ** (bits - 1);
  const packed = new Uint8Array((n * k * bits) / 8);
  const scales = new Float64Array(n * count);
  for (let row = 0; row < n; row++) {
    for (let j = 0; j < count; j++) {
      const block = Array.from({ length: BLOCK }, (_, i) => values[(j * BLOCK + i) * n + row] as number);
      const extreme = block.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
      const scale = extreme / -middle;
      scales[row * count + j] = scale;
      for (const [i, value] of block.entries()) {
        const level = Math.min(Math.max(Math.round(value / scale) + middle, 0), 2 * middle - 1);
        const bit = (row * k + j * BLOCK + i) * bits;
        packed[bit >> 3] = (packed[bit >> 3] as number) | (level << (bit & 7));
      }
    }
  }
  const stored = new Uint8Array(n * count * 2);
  storeFloats('float16', scales, 0, scales.length, new DataView(stored.buffer), 0);
  return {
    blocks: inlineWeight(packed, 'uint8', [n, count, (BLOCK * bits) / 8]),
    scales: inlineWeight(stored, 'float16', [n, count]),
  };
}

async function fuseReport(
  folder: string,
  input: string,
  ...argv: string[]
): Promise<{ report: Report; stdout: string }> {
  const [output, file] = [join(folder, 'out.onnx'), join(folder, 'report.json')];
  const { code, stdout, stderr } = await runCli(input, output, '--remove-attention', '3-6', '--report', file, ...argv);
  assert.is(code, 0, stderr);
  return { report: JSON.parse(readFileSync(file, 'utf8')) as Report, stdout };
}

const productsIn = (path: string): number =>
  [...openModel(path).graph.nodes()].filter((node) => node.opType === 'MatMulNBits').length;

test('without the flag quantised numbers stay as they are, and gate and up with their norms', () =>
  inWorkspace(async (folder) => {
    const input = join(folder, 'in.onnx');
    await saveModel(quantised(openModel(TALES12), 4), input);
    const { report, stdout } = await fuseReport(folder, input);
    assert.is(factsOf(report, concatFfn)[0]?.fusedWidth, 1056);
    assert.equal(factsOf(report, requantizeFfn), []);
    assert.is(report.checks.requantization, null);
    assert.ok(report.checks.algebra?.pass);
    assert.not.match(stdout, /quantised/i);
    // Three FFNs of three products: the down projections became one.
    assert.is(productsIn(join(folder, 'out.onnx')), 36 - 2);
  }));

test('with it, gate and up become one each, held to the algebra, and the error of rounding again is a figure of its own', () =>
  inWorkspace(async (folder) => {
    const errors: number[] = [];
    for (const bits of [8, 4] as const) {
      const input = join(folder, `in-${bits}.onnx`);
      await saveModel(quantised(openModel(TALES12), bits), input);
      const { report, stdout } = await fuseReport(folder, input, '--requantize');
      assert.equal(factsOf(report, concatFfn), [
        { layers: ['3', '4', '5'], widths: [352, 352, 352], fusedWidth: 1056 },
      ]);
      assert.equal(factsOf(report, requantizeFfn), [{ layers: ['3', '4', '5'] }]);
      const { algebra, requantization } = report.checks;
      assert.is(algebra?.tolerance, 4.4e-3, 'the merge itself is judged as strictly as ever');
      assert.ok(algebra?.pass && requantization);
      errors.push(requantization.maxRelative);
      assert.match(stdout, /layers 3, 4, 5 .*QUANTISED AGAIN/);
      assert.match(stdout, /requantised: relative error .*not held to a tolerance/);
      assert.is(productsIn(join(folder, 'out.onnx')), 36 - 6);
    }
    const [eight = 0, four = 0] = errors;
    assert.ok(eight > 1e-4 && eight < 0.05, `8 bits: ${eight}`);
    assert.ok(four > 4 * eight && four < 0.5, `4 bits: ${four}`);
  }));

test.run();
