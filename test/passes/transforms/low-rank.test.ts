/** Linears of low rank, n(x) A B + b: as one matrix would be, read back, joined in a run, and cut over ranks. */
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { referenceBytes } from '../../../ir/disk/model.js';
import { type Model, openModelBytes } from '../../../ir/index.js';
import {
  factsOf,
  layersOf,
  linearize,
  type PipelineResult,
  parsePipeline,
  referenceSteps,
  registry,
  runPipeline,
  type Step,
  shardTensorParallel,
  step,
} from '../../../passes/index.js';
import { type Candidate, chainOf, openGroup, verifyPair, workOf } from '../../../runtime/index.js';
import { type FitTensor, fitTensor, fitTensors, writeFit } from '../../helpers/fit-file.js';
import { goldenInput } from '../../helpers/golden-check.js';
import { type NasBlock, nasDecoder } from '../../helpers/nas-decoder.js';
import { suite } from '../../helpers/suite.js';
import { located } from '../../helpers/tiny-decoder.js';
import { inWorkspace } from '../../helpers/workspace.js';

const test = suite('linears of low rank');

const WHOLE: NasBlock = { attention: 'attention', ffn: 'ffn' };
const BLOCKS = [WHOLE, WHOLE, WHOLE, WHOLE];
const WIDTH = 16;

/** Maps of this rank with a bias, in the places of these branches. */
const lowRank = (hidden: number, rank: number, ...branches: readonly string[]): Record<string, FitTensor> =>
  Object.fromEntries(
    branches.flatMap((branch) => [
      [`${branch}.left`, fitTensor(`${branch}.left`, hidden, rank)],
      [`${branch}.right`, fitTensor(`${branch}.right`, rank, hidden)],
      [`${branch}.bias`, fitTensor(`${branch}.bias`, hidden)],
    ]),
  );

/** The same maps as one matrix each. */
function multiplied(tensors: Readonly<Record<string, FitTensor>>): Record<string, FitTensor> {
  return Object.fromEntries(
    Object.entries(tensors).flatMap(([name, left]): [string, FitTensor][] => {
      if (name.endsWith('.right')) return [];
      if (!name.endsWith('.left')) return [[name, left]];
      const right = tensors[name.replace(/left$/, 'right')]!;
      const [hidden, rank] = left.dims as [number, number];
      const data = new Float64Array(hidden * hidden);
      for (let i = 0; i < hidden; i++)
        for (let k = 0; k < rank; k++)
          for (let j = 0; j < hidden; j++)
            data[i * hidden + j]! += left.data[i * rank + k]! * right.data[k * hidden + j]!;
      return [[name.replace(/left$/, 'weight'), { dims: [hidden, hidden], data }]];
    }),
  );
}

const run = (model: Model, steps: readonly Step[]): PipelineResult => runPipeline(model, steps);
const passes = (text: string): Step[] => parsePipeline(text, registry);
const reopened = (model: Model): Model => openModelBytes(referenceBytes(model, '.'), '.');

/** Slot and rank of every linear, layer by layer. */
function ranks(model: Model): string[] {
  return layersOf(reopened(model)).layers.flatMap(({ label, linears }) =>
    linears.map(({ slot, right }) => `${slot} ${label}: ${right?.inWidth ?? 'whole'}`),
  );
}

async function near(reference: Model, model: Model, tolerance: number): Promise<void> {
  const { worst, onlyReference, onlyCandidate, nonFinite } = await verifyPair(located(reference), located(model));
  assert.equal([onlyReference, onlyCandidate, nonFinite], [[], [], [0, 0]]);
  assert.ok(worst.relative < tolerance, `${worst.relative}`);
}

const CASES: readonly [string, number, string[], number][] = [
  ['linearize/skip-norms', 8, ['attention.1', 'ffn.0'], 1e-5],
  ['linearize/skip-norms-float16', 8, ['attention.1', 'ffn.0'], 4e-3],
  ['linearize/packed', 4, ['attention.1'], 1e-5],
  ['linearize/parallel-block', 4, ['attention.0'], 1e-5],
  ['linearize/int4', 16, ['attention.0', 'ffn.0'], 1e-5],
];

for (const [name, hidden, branches, tolerance] of CASES) {
  test(`in ${name} two matrices do what their product does, in the type of the activations, and are read as one linear`, () =>
    inWorkspace(async (folder) => {
      const tensors = lowRank(hidden, 2, ...branches);
      const layersIn = (part: string): number[] =>
        branches.filter((branch) => branch.startsWith(part)).map((branch) => Number(branch.split('.')[1]));
      const made = (file: string, maps: Readonly<Record<string, FitTensor>>): [Model, PipelineResult] => {
        const model = goldenInput(name);
        const map = writeFit(join(folder, file), maps);
        return [model, run(model, [step(linearize, { attention: layersIn('attention'), ffn: layersIn('ffn'), map })])];
      };
      const [model, result] = made('low.onnx-fuse-fit', tensors);
      const [expected] = made('whole.onnx-fuse-fit', multiplied(tensors));
      assert.equal(
        factsOf(result, linearize).map(({ parameters, rank }) => [parameters, rank]),
        branches.map(() => [2 * 2 * hidden + hidden, 2]),
      );
      assert.equal(
        ranks(model).map((text) => text.replace(/.*: /, '')),
        branches.map(() => '2'),
      );
      await near(expected, reopened(model), tolerance);
    }));
}

test('beside bfloat16 activations both matrices and the bias are bfloat16', () =>
  inWorkspace((folder) => {
    const model = goldenInput('pipeline/bfloat16');
    const map = writeFit(join(folder, 'maps.onnx-fuse-fit'), lowRank(4, 2, 'attention.1'));
    run(model, [step(linearize, { attention: [1], map })]);
    const found = [...model.graph.initializers].flatMap(({ name, initializer }) =>
      name.includes('attn.linear.') ? [`${initializer?.dtype}[${initializer?.dims.join()}]`] : [],
    );
    assert.equal(found.sort(), ['bfloat16[2,4]', 'bfloat16[4,2]', 'bfloat16[4]']);
  }));

test('the cost of a linear of low rank is that of both matrices', () =>
  inWorkspace((folder) => {
    const bytesWith = (file: string, maps: Readonly<Record<string, FitTensor>>): number => {
      const model = nasDecoder(BLOCKS, 'torch');
      run(model, [step(linearize, { attention: [1], map: writeFit(join(folder, file), maps) })]);
      const { weightBytes, linears } = workOf(reopened(model));
      assert.is(linears, 1);
      return weightBytes;
    };
    const low = lowRank(WIDTH, 2, 'attention.1');
    const less = bytesWith('whole.onnx-fuse-fit', multiplied(low)) - bytesWith('low.onnx-fuse-fit', low);
    assert.is(less, 4 * (WIDTH * WIDTH - 2 * 2 * WIDTH));
  }));

const FUSED = 'parallelize-ffn{runs=0-3},concat-ffn,concat-linear,drop-dead';

for (const style of ['torch', 'genai'] as const) {
  test(`in a run of a ${style} decoder they are joined along the rank, exactly`, () =>
    inWorkspace(async (folder) => {
      const tensors = lowRank(WIDTH, 2, 'attention.1', 'attention.2', 'attention.3');
      const map = writeFit(join(folder, 'maps.onnx-fuse-fit'), tensors);
      const steps = [step(linearize, { attention: [1, 2, 3], map }), ...passes(FUSED)];
      const [model, parallel] = [nasDecoder(BLOCKS, style), nasDecoder(BLOCKS, style)];
      const { remarks } = run(model, steps);
      run(parallel, referenceSteps(steps));
      assert.ok(remarks.some(({ message }) => message.startsWith('3 linears of layers 1, 2, 3 became one')));
      assert.equal(
        ranks(model).map((text) => text.replace(/^\w+ /, '')),
        ['0-3: 6'],
      );
      assert.equal(ranks(parallel).length, 3);
      await near(parallel, reopened(model), 1e-5);
    }));
}

test('a LayerNorm that is folded leaves its shift in the bias', () =>
  inWorkspace(async (folder) => {
    const map = writeFit(join(folder, 'maps.onnx-fuse-fit'), lowRank(4, 2, 'attention.1'));
    const steps = [
      step(linearize, { attention: [1], map }),
      ...passes('parallelize-ffn{keep-last=0 lead=true runs=0-1},concat-ffn,concat-linear,drop-dead'),
    ];
    const [model, parallel] = [goldenInput('pipeline/gpt2'), goldenInput('pipeline/gpt2')];
    run(model, steps);
    run(parallel, referenceSteps(steps));
    assert.equal(ranks(model), ['attention 0-1: 2']);
    await near(parallel, reopened(model), 1e-5);
  }));

test('whole linears and ones of low rank stay apart, and that is said', () =>
  inWorkspace(async (folder) => {
    const tensors = { ...lowRank(WIDTH, 2, 'attention.1', 'attention.3'), ...fitTensors(WIDTH, 'attention.2.weight') };
    const map = writeFit(join(folder, 'maps.onnx-fuse-fit'), tensors);
    const steps = [step(linearize, { attention: [1, 2, 3], map }), ...passes(FUSED)];
    const [model, parallel] = [nasDecoder(BLOCKS, 'torch'), nasDecoder(BLOCKS, 'torch')];
    const { remarks } = run(model, steps);
    run(parallel, referenceSteps(steps));
    assert.equal(
      ranks(model)
        .map((text) => text.replace(/.*: /, ''))
        .sort(),
      ['4', 'whole'],
    );
    assert.ok(
      remarks.some(({ kind, message }) => kind === 'missed' && /stays parallel.*of low rank/.test(message)),
      remarks.map(({ message }) => message).join('\n'),
    );
    await near(parallel, reopened(model), 1e-5);
  }));

test('linears whose ranks are together no lower than the stream is wide stay parallel', () =>
  inWorkspace(async (folder) => {
    const tensors = lowRank(WIDTH, 6, 'attention.1', 'attention.2', 'attention.3');
    const map = writeFit(join(folder, 'maps.onnx-fuse-fit'), tensors);
    const steps = [step(linearize, { attention: [1, 2, 3], map }), ...passes(FUSED)];
    const [model, parallel] = [nasDecoder(BLOCKS, 'torch'), nasDecoder(BLOCKS, 'torch')];
    const { remarks } = run(model, steps);
    run(parallel, referenceSteps(steps));
    const why = /stay parallel: together they would be of rank 18, in a stream of 16 channels/;
    assert.ok(remarks.some(({ kind, message }) => kind === 'missed' && why.test(message)));
    assert.is(ranks(model).length, 3);
    await near(parallel, reopened(model), 1e-5);
  }));

/** A fused run with a linear of this rank beside it, and the ranks of a group that it is cut over. */
async function cut(folder: string, rank: number, count: number) {
  const map = writeFit(join(folder, `${rank}.onnx-fuse-fit`), lowRank(WIDTH, rank, 'attention.2'));
  const make = (more: string): [Model, PipelineResult] => {
    const model = nasDecoder(BLOCKS, 'genai');
    const linear = step(linearize, { attention: [2], map });
    return [model, run(model, [...passes('remove-attention{layers=1,3}'), linear, ...passes(FUSED + more)])];
  };
  const shard = (own: number): [Model, PipelineResult] =>
    make(`,shard-tensor-parallel{ranks=${count} rank=${own} lm-head=replicate}`);
  const [model] = make('');
  const [first, result] = shard(0);
  const [facts] = factsOf(result, shardTensorParallel);
  const { caches, collectives, branches } = facts!;
  const chains = Array.from({ length: count }, (_, own) => chainOf(() => shard(own)[0], [], `rank ${own}`));
  const open: Candidate['open'] = (options) => openGroup(chains, { caches }, options);
  const reference = located(model);
  const { worst } = await verifyPair(reference, { ...reference, open });
  assert.ok(worst.relative < 1e-5, `${worst.relative}`);
  return { first, collectives, branches, remarks: result.remarks };
}

test('over ranks they are cut by columns and by rows, and add to the all-reduce of the FFN beside them', () =>
  inWorkspace(async (folder) => {
    for (const count of [2, 4]) {
      const { first, collectives, branches } = await cut(folder, 4, count);
      // The attention that is left has two heads.
      const replicated = count === 4 ? ['2 heads do not divide among 4 ranks'] : [];
      assert.equal(
        branches.flatMap(({ reason }) => reason ?? []),
        replicated,
      );
      assert.is(branches.length, 3);
      assert.is(collectives.length, 2 - replicated.length);
      const dims = [...first.graph.initializers].flatMap(({ name, initializer }) =>
        /linear\.(left|right)/.test(name) ? [initializer?.dims.join()] : [],
      );
      assert.equal(dims, [`${WIDTH},${4 / count}`, `${4 / count},${WIDTH}`]);
      assert.not([...first.graph.nodes()].some(({ op }) => op === 'Slice'));
    }
  }));

test('a rank that does not divide among the ranks of the group is replicated, and that is said', () =>
  inWorkspace(async (folder) => {
    const { branches, remarks } = await cut(folder, 3, 2);
    const why = '3 channels between its two matrices do not divide among 2 ranks';
    assert.ok(branches.some(({ reason }) => reason === why));
    assert.ok(remarks.some(({ kind, message }) => kind === 'missed' && message.endsWith(why)));
  }));

test('two matrices with as many channels in between as the stream has are no linear of low rank', () =>
  inWorkspace((folder) => {
    for (const [rank, expected] of [
      [WIDTH - 1, [`attention 1: ${WIDTH - 1}`]],
      [WIDTH, []],
    ] as const) {
      const map = writeFit(join(folder, `wide-${rank}.onnx-fuse-fit`), lowRank(WIDTH, rank, 'attention.1'));
      const model = nasDecoder(BLOCKS, 'torch');
      run(model, [step(linearize, { attention: [1], map })]);
      assert.equal(ranks(model), expected);
    }
  }));

test.run();
