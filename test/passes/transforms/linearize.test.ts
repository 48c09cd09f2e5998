/** Maps in the places of branches, held against decoders that were made with linears there, and against sums worked out by hand. */
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { referenceBytes } from '../../../ir/disk/model.js';
import { Diagnostic, type Model, openModelBytes, readWeight, type Value } from '../../../ir/index.js';
import {
  factsOf,
  layersOf,
  linearize,
  type PipelineResult,
  parsePipeline,
  registry,
  runPipeline,
  step,
} from '../../../passes/index.js';
import { readSignature, runSteps, stepTokens, verifyPair, withSession } from '../../../runtime/index.js';
import { quantise } from '../../../runtime/stream/map-blocks.js';
import { type FitTensor, fitTensor, fitTensors, writeFit } from '../../helpers/fit-file.js';
import { type NasBlock, type NasStyle, nasDecoder, nasLinear } from '../../helpers/nas-decoder.js';
import { suite } from '../../helpers/suite.js';
import { located } from '../../helpers/tiny-decoder.js';
import { inWorkspace } from '../../helpers/workspace.js';

const test = suite('linearize');

const WHOLE: NasBlock = { attention: 'attention', ffn: 'ffn' };
const STYLES: readonly NasStyle[] = ['torch', 'genai'];
const WIDTH = 16;

function run(
  model: Model,
  attention: readonly number[],
  ffn: readonly number[],
  map: string,
  more = '',
): PipelineResult {
  const steps = [step(linearize, { attention, ffn, map }), ...parsePipeline(more, registry)];
  return runPipeline(model, steps);
}

const floats = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.slice().buffer);

/** Layers with what stands in them, as a reader finds them. */
function contents(model: Model): string[] {
  return layersOf(model).layers.map(({ index, attention, ffn, linears }) => {
    const parts = [attention && 'attention', ffn && 'ffn', ...linears.map(({ slot }) => `linear ${slot}`)];
    return `${index}: ${parts.filter(Boolean).join(', ')}`;
  });
}

/** The model written and read again. */
function reopened(model: Model): Model {
  return openModelBytes(referenceBytes(model, '.'), '.');
}

for (const style of STYLES) {
  test(`a ${style} decoder with maps is the decoder that has linears there, bit for bit`, () =>
    inWorkspace(async (folder) => {
      const blocks = [WHOLE, WHOLE, WHOLE, WHOLE];
      const [attention, ffn] = [
        [0, 2, 3],
        [1, 3],
      ];
      const tensor = (layer: number, part: 'attention' | 'ffn') => ({
        dims: [WIDTH, WIDTH],
        data: floats(readWeight(nasLinear(layer, part))),
      });
      const map = writeFit(
        join(folder, 'maps.onnx-fuse-fit'),
        Object.fromEntries([
          ...attention.map((layer) => [`attention.${layer}.weight`, tensor(layer, 'attention')]),
          ...ffn.map((layer) => [`ffn.${layer}.weight`, tensor(layer, 'ffn')]),
        ]),
      );
      const model = nasDecoder(blocks, style);
      const result = run(model, attention, ffn, map, 'drop-dead');
      const made = nasDecoder(
        blocks.map((block, i) => ({
          attention: attention.includes(i) ? 'linear' : block.attention,
          ffn: ffn.includes(i) ? 'linear' : block.ffn,
        })),
        style,
      );
      assert.equal(contents(reopened(model)), contents(made));
      assert.equal(
        [...model.graph.nodes()].map(({ op }) => op).sort(),
        [...made.graph.nodes()].map(({ op }) => op).sort(),
      );
      const { worst, onlyReference, onlyCandidate } = await verifyPair(located(made), located(model));
      assert.equal([worst.absolute, onlyReference, onlyCandidate], [0, [], []]);
      const { worst: moved } = await verifyPair(located(nasDecoder(blocks, style)), located(model));
      assert.ok(moved.absolute > 1e-3, 'the maps do something else than what they replace');
      const facts = factsOf(result, linearize).map(({ layer, part, map: kind }) => `${part} ${layer} ${kind}`);
      assert.equal(facts, [
        ...attention.map((layer) => `attention ${layer} linear`),
        ...ffn.map((layer) => `ffn ${layer} linear`),
      ]);
    }));

  test(`a map in blocks of bits in a ${style} decoder is a MatMulNBits, and computes what the matrix it means does`, () =>
    inWorkspace(async (folder) => {
      const bias = fitTensor('attention.1.bias', WIDTH);
      for (const bits of [4, 8] as const) {
        const { data } = fitTensor('attention.1.weight', WIDTH, WIDTH);
        const { blocks, weight } = quantise(Float32Array.from(data), WIDTH, bits);
        const file = (name: string, tensors: Record<string, FitTensor>): string =>
          writeFit(join(folder, `${name}.onnx-fuse-fit`), { ...tensors, 'attention.1.bias': bias });
        const levels: FitTensor = { dims: blocks.dims, data: blocks.levels, dtype: 'uint8' };
        const scales: FitTensor = { dims: blocks.dims.slice(0, 2), data: blocks.scales };
        const quantised = file('blocks', { 'attention.1.levels': levels, 'attention.1.scales': scales });
        const dense = file('dense', { 'attention.1.weight': { dims: [WIDTH, WIDTH], data: weight } });
        const [model, expected] = [nasDecoder([WHOLE, WHOLE], style), nasDecoder([WHOLE, WHOLE], style)];
        const facts = factsOf(run(model, [1], [], quantised), linearize);
        run(expected, [1], [], dense);
        assert.equal(contents(reopened(model)), contents(expected));
        assert.is(facts[0]?.parameters, WIDTH * WIDTH + WIDTH);
        const made = [...model.graph.nodes()].filter(({ op }) => op === 'com.microsoft.MatMulNBits');
        assert.is(made[0]?.intAttribute('bits'), bits);
        const { worst } = await verifyPair(located(expected), located(reopened(model)));
        assert.ok(worst.relative < 1e-5, `${worst.relative}`);
        const wrong = file('wrong', { 'attention.1.levels': { ...levels, dims: [1, WIDTH, 4 * bits] } });
        assert.throws(() => run(nasDecoder([WHOLE, WHOLE], style), [1], [], wrong), /OF_FIT .*levels/);
      }
    }));

  test(`a bias alone in a ${style} decoder is added to the stream, and hides no layer`, () =>
    inWorkspace(async (folder) => {
      const blocks = [WHOLE, WHOLE, WHOLE];
      const tensors = fitTensors(WIDTH, 'attention.1.bias', 'ffn.1.bias', 'attention.2.bias');
      const map = writeFit(join(folder, 'biases.onnx-fuse-fit'), tensors);
      const plain = nasDecoder(blocks, style);
      runPipeline(plain, parsePipeline('remove-attention{layers=1-2},remove-ffn{layers=1}', registry));
      const model = nasDecoder(blocks, style);
      run(model, [1, 2], [1], map);
      assert.equal(contents(reopened(model)), ['0: attention, ffn', '2: ffn']);
      // All that was added: the sum that the FFN of layer 2 reads.
      const sum = new Float64Array(WIDTH);
      for (const { data } of Object.values(tensors)) for (let i = 0; i < WIDTH; i++) sum[i]! += data[i] as number;
      const [before, after] = await Promise.all([plain, model].map((each) => streamBefore(each, 2)));
      for (const [i, value] of after!.entries()) {
        const expected = (before![i] as number) + (sum[i % WIDTH] as number);
        assert.ok(Math.abs(value - expected) < 1e-5, `${value} instead of ${expected}`);
      }
    }));

  test(`a map with a bias in a ${style} decoder is x + n(x) W + b in double precision`, () =>
    inWorkspace(async (folder) => {
      const tensors = fitTensors(WIDTH, 'attention.1.weight', 'attention.1.bias');
      const map = writeFit(join(folder, 'maps.onnx-fuse-fit'), tensors);
      const model = nasDecoder([WHOLE, WHOLE], style);
      run(model, [1], [], map);
      const linear = layersOf(model).layers[1]!.linears[0]!;
      const [start, normed, end] = await valuesOf(model, [
        streamValue(linear.stage.start),
        linear.norm.output,
        streamValue(linear.stage.end),
      ]);
      const [weight, bias] = [tensors['attention.1.weight']!.data, tensors['attention.1.bias']!.data];
      const gamma = floats(readWeight(linear.norm.gamma!.weight));
      for (let row = 0; row < start!.length; row += WIDTH) {
        const x = Float64Array.from(start!.subarray(row, row + WIDTH));
        const mean = x.reduce((total, value) => total + value * value, 0) / WIDTH;
        const n = x.map((value, i) => (value / Math.sqrt(mean + 1e-5)) * (gamma[i] as number));
        for (let column = 0; column < WIDTH; column++) {
          assert.ok(Math.abs(n[column]! - normed![row + column]!) < 1e-5);
          let expected = x[column]! + (bias[column] as number);
          for (let i = 0; i < WIDTH; i++) expected += n[i]! * (weight[i * WIDTH + column] as number);
          assert.ok(Math.abs(end![row + column]! - expected) < 1e-5, `${end![row + column]} instead of ${expected}`);
        }
      }
    }));
}

/** The stream at the sum that the FFN of a layer reads. */
async function streamBefore(model: Model, layer: number): Promise<Float32Array> {
  const { ffn } = layersOf(model).layers.find(({ index }) => index === layer)!;
  const [values] = await valuesOf(model, [streamValue(ffn!.stage.start)]);
  return values!;
}

function streamValue(point: Value | { output(index: number): Value | null }): Value {
  return 'uses' in point ? point : (point.output(3) as Value);
}

/** Values of a model for one prefill, made graph outputs. */
async function valuesOf(model: Model, values: readonly Value[]): Promise<Float32Array[]> {
  for (const value of values) if (!value.isGraphOutput) model.graph.addOutput(value);
  const signature = readSignature(model);
  return withSession(located(model).location, { optimization: 'disabled' }, async (session) => {
    const { steps } = await runSteps(session, signature, { tokenIds: stepTokens(signature, 2, 5, 1) });
    return values.map(({ name }) => steps[0]!.outputs.get(name)!.data as Float32Array);
  });
}

test('a file that does not fit is refused with what it holds, and nothing is changed', () =>
  inWorkspace((folder) => {
    const good = fitTensors(WIDTH, 'attention.0.weight', 'attention.0.bias', 'attention.1.bias');
    const cases: readonly [Parameters<typeof writeFit>[1], RegExp][] = [
      [{}, /it holds no maps/],
      [fitTensors(8, 'attention.0.weight'), /'attention\.0\.weight' is float\[8, 8\], where float\[16, 16\] is needed/],
      [{ 'attention.0.bias': { dims: [16, 1], data: new Float32Array(16) } }, /float\[16, 1\], where float\[16\]/],
      [
        { 'attention.0.weight': { dims: [16, 16], data: new Float64Array(256), dtype: 'double' } },
        /is double\[16, 16\], where float\[16, 16\] is needed/,
      ],
      [fitTensors(WIDTH, 'attention.0.left'), /it has 'attention\.0\.left' and no 'attention\.0\.right'/],
      [fitTensors(WIDTH, 'attention.0.weight', 'attention.0.left', 'attention.0.right'), /whole and in two parts/],
      [fitTensors(WIDTH, 'ffn.0.weight'), /it has no map for the attention of layer 0/],
    ];
    for (const [i, [tensors, why]] of cases.entries()) {
      const map = writeFit(join(folder, `bad-${i}.onnx-fuse-fit`), tensors);
      const model = nasDecoder([WHOLE, WHOLE], 'torch');
      const before = contents(model);
      assert.throws(
        () => run(model, [0], [], map),
        (error: unknown) => error instanceof Diagnostic && error.code === 'OF_FIT' && why.test(error.message),
        String(why),
      );
      assert.equal(contents(model), before);
    }
    // With keep-going, a layer without a map is left, and said.
    const map = writeFit(join(folder, 'good.onnx-fuse-fit'), good);
    const model = nasDecoder([WHOLE, WHOLE, WHOLE], 'torch');
    const result = runPipeline(model, [step(linearize, { attention: [0, 1, 2], map, 'keep-going': true })]);
    assert.equal(
      result.refused.map(({ layer }) => layer),
      ['2'],
    );
    assert.equal(contents(reopened(model)), ['0: ffn, linear attention', '1: ffn', '2: attention, ffn']);
  }));

test('a model with biases in the places of branches can be given gates', () =>
  inWorkspace(async (folder) => {
    const map = writeFit(join(folder, 'biases.onnx-fuse-fit'), fitTensors(WIDTH, 'attention.1.bias', 'ffn.0.bias'));
    for (const style of STYLES) {
      const model = nasDecoder([WHOLE, WHOLE, WHOLE], style);
      run(model, [1], [0], map);
      const gated = reopened(model);
      const { remarks } = runPipeline(gated, parsePipeline('instrument', registry));
      assert.ok(remarks.some(({ message }) => /branches and \d+ of their dependencies have gates/.test(message)));
      const { worst } = await verifyPair(located(model), located(gated), { tokens: [3, 5], seeds: [1] });
      assert.ok(worst.absolute < 1e-6, `${worst.absolute}`);
    }
  }));

test.run();
