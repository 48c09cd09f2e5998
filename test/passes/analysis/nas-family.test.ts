/**
 * Every kind of block that architecture search leaves, beside every other, in two exporters' styles: what inspect, removal,
 * runs and block_configs say and do is held against what was put in.
 */
import * as assert from 'uvu/assert';
import { JsonText } from '../../../api/basics/json-text.js';
import { describeArchitecture } from '../../../api/folder/hf-config.js';
import { layerFacts } from '../../../api/fuse/figures.js';
import type { Report } from '../../../api/fuse/report.js';
import { inspectModel } from '../../../api/inspect/inspect.js';
import { Diagnostic, type Model } from '../../../ir/index.js';
import {
  concatFfn,
  type FactsByPass,
  factsOf,
  layersOf,
  type PipelineResult,
  parsePipeline,
  registry,
  removeFfn,
  runPipeline,
} from '../../../passes/index.js';
import { tensorsOf, verifyPair } from '../../../runtime/index.js';
import { mix } from '../../../runtime/run/random.js';
import { type NasBlock, type NasStyle, nasDecoder, nasWidth } from '../../helpers/nas-decoder.js';
import { suite } from '../../helpers/suite.js';
import { located } from '../../helpers/tiny-decoder.js';

const nas = suite('decoders of architecture search');

const BLOCKS = 5;
const KINDS: readonly NasBlock[] = (['attention', 'linear', 'none'] as const).flatMap((attention) =>
  (['ffn', 'linear', 'none'] as const).map((ffn) => ({ attention, ffn })),
);
const STYLES: readonly NasStyle[] = ['torch', 'genai'];

/**
 * Rows of five kinds in which every two kinds stand in every two places. Of two numbers below nine, sums with unlike factors
 * give all pairs; those of the last two places, whose factors differ by three, are filled up.
 */
function family(): readonly (readonly NasBlock[])[] {
  const numbers = KINDS.map((_, kind) => kind);
  const rows = numbers.flatMap((a) =>
    numbers.map(
      (b) => [a, b, (a + b) % 9, (a + 2 * b) % 9, (a + 5 * b) % 9] as [number, number, number, number, number],
    ),
  );
  const pairs = (i: number, j: number) => new Set(rows.map((row) => 9 * (row[i] as number) + (row[j] as number)));
  const known = pairs(3, 4);
  for (let pair = 0; pair < 81; pair++) {
    const chance = (place: number): number => mix(pair, place) % 9;
    if (!known.has(pair)) rows.push([chance(0), chance(1), chance(2), Math.floor(pair / 9), pair % 9]);
  }
  for (let i = 0; i < BLOCKS; i++) for (let j = i + 1; j < BLOCKS; j++) assert.is(pairs(i, j).size, 81, `${i} ${j}`);
  return rows.map((row) => row.map((kind) => KINDS[kind] as NasBlock));
}

const FAMILY = family();

const isEmpty = ({ attention, ffn }: NasBlock): boolean => attention === 'none' && ffn === 'none';
const spell = (blocks: readonly NasBlock[]): string =>
  blocks.map(({ attention, ffn }) => `${attention}+${ffn}`).join(' ');

/** Every model of the family, with the blocks it was made of; what fails says which one it was. */
function each(check: (blocks: readonly NasBlock[], style: NasStyle, seed: number) => void): void {
  let count = 0;
  for (const [seed, blocks] of FAMILY.entries()) {
    for (const style of STYLES) {
      try {
        check(blocks, style, seed);
      } catch (error) {
        if (error instanceof Error) error.message = `${style} ${spell(blocks)}: ${error.message}`;
        throw error;
      }
      count++;
    }
  }
  assert.is(count, 2 * FAMILY.length);
}

function run(model: Model, pipeline: string): PipelineResult {
  return runPipeline(model, parsePipeline(pipeline, registry));
}

/** Weights and operators, each as often as it is there. */
function contents(model: Model): string[] {
  const weights = [...tensorsOf(model)].map(({ weight }) => weight?.key ?? '');
  return [...weights, ...[...model.graph.nodes()].map((node) => node.op)].sort();
}

/** The blocks without the attention, or the FFN, of one. */
function without(blocks: readonly NasBlock[], block: number, part: 'attention' | 'ffn'): NasBlock[] {
  return blocks.map((each, i) => (i === block ? { ...each, [part]: 'none' } : each));
}

nas('every layer has its number, its kinds and its width', () =>
  each((blocks, style) => {
    const { layers, model } = inspectModel(nasDecoder(blocks, style), 'nas');
    const found = layers.map(({ index, name, attention, ffn, linears, others }) => ({
      index,
      name,
      attention: attention.kind,
      ffn: ffn.kind,
      width: ffn.width,
      linears: linears.map(({ slot }) => slot),
      others,
    }));
    const kind = style === 'torch' ? 'decomposed' : 'GroupQueryAttention';
    const expected = blocks.flatMap((block, index) => ({
      index,
      name: `model.layers.${index}`,
      attention: block.attention === 'attention' ? kind : null,
      ffn: block.ffn === 'ffn' ? 'SwiGLU' : null,
      width: block.ffn === 'ffn' ? nasWidth(index) : null,
      linears: [...(block.attention === 'linear' ? ['attention'] : []), ...(block.ffn === 'linear' ? ['ffn'] : [])],
      others: [],
    }));
    assert.equal(
      found,
      expected.filter((_, i) => !isEmpty(blocks[i] as NasBlock)),
    );
    assert.is(model.doubt, null);
  }),
);

for (const part of ['attention', 'ffn'] as const) {
  nas(`removal takes the ${part} of the layer that was named, or says why not`, () =>
    each((blocks, style, seed) => {
      // One that has it, where there is one, and one that may not have it.
      const first = blocks.findIndex((each) => each[part] === part);
      for (const block of new Set([first < 0 ? 0 : first, mix(seed, 2) % BLOCKS])) {
        const model = nasDecoder(blocks, style);
        const pipeline = `remove-${part}{layers=${block}},drop-dead`;
        if (blocks[block]?.[part] === part) {
          run(model, pipeline);
          assert.equal(contents(model), contents(nasDecoder(without(blocks, block, part), style)), `layer ${block}`);
          continue;
        }
        const before = contents(model);
        const code = isEmpty(blocks[block] as NasBlock) ? 'OF_NO_SUCH_LAYER' : 'OF_CANNOT_REMOVE';
        const why = blocks[block]?.[part] === 'linear' ? /a linear stands in its place/ : /it has none|no such layer/;
        const isRight = (error: unknown): boolean =>
          error instanceof Diagnostic &&
          error.code === code &&
          error.place === `layer ${block}` &&
          why.test(error.message);
        assert.throws(() => run(model, pipeline), isRight, `layer ${block} has no ${part}`);
        // Asked to keep going, the pass speaks of the layer and changes nothing.
        const kept = run(model, `remove-${part}{layers=${block} keep-going=true}`);
        assert.equal(
          kept.refused.map(({ layer }) => layer),
          [String(block)],
        );
        assert.equal(contents(model), before);
      }
    }),
  );
}

/** True when nothing but linears stands between the FFNs of the blocks, whatever comes before the first. */
function isRun(blocks: readonly NasBlock[]): boolean {
  return blocks.every(({ attention, ffn }, i) => ffn === 'ffn' && (i === 0 || attention !== 'attention'));
}

nas('a run is fused where its FFNs follow each other, and refused everywhere else', () => {
  let fused = 0;
  each((blocks, style, seed) => {
    // By chance most blocks are in no run: the longest that there is, or any.
    const all = [0, 1, 2, 3].flatMap((i) => [4, 3, 2, 1].filter((j) => j > i).map((j) => [i, j] as const));
    const any = all[mix(seed, 7) % all.length] as readonly [number, number];
    const [from, to] = all.find(([i, j]) => isRun(blocks.slice(i, j + 1))) ?? any;
    const pipeline = `parallelize-ffn{runs=${from}-${to}},concat-ffn`;
    const model = nasDecoder(blocks, style);
    const members = blocks.slice(from, to + 1);
    if (isRun(members)) {
      const done = run(model, pipeline);
      const widths = members.map((_, i) => nasWidth(from + i));
      assert.equal(
        factsOf(done, concatFfn).map(({ layers, widths: own }) => ({ layers, own })),
        [{ layers: members.map((_, i) => String(from + i)), own: widths }],
      );
      fused++;
    } else {
      const isRight = (error: unknown): boolean =>
        error instanceof Diagnostic && /OF_CANNOT_FUSE|OF_NO_SUCH_LAYER/.test(error.code);
      assert.throws(() => run(model, pipeline), isRight, `${from}-${to}`);
    }
  });
  assert.ok(fused > 20, `${fused} runs`);
});

nas('block_configs say what is in each block, before and after a removal', () => {
  const settings = { num_hidden_layers: BLOCKS, num_attention_heads: 2, hidden_size: 16, intermediate_size: 99 };
  const config = new JsonText(JSON.stringify(settings), 'config.json');
  const none = { no_op: true };
  const linear = { no_op: false, replace_with_linear: true };
  const attention = { no_op: false, num_key_value_heads: 2, n_heads_in_group: 1 };
  const entries = (blocks: readonly NasBlock[]) =>
    blocks.map((block, i) => ({
      attention: { attention, linear, none }[block.attention],
      ffn: { ffn: { no_op: false, intermediate_size: nasWidth(i) }, linear, none }[block.ffn],
    }));
  const described = (model: Model, facts: FactsByPass) => {
    const { layers, numbering } = layersOf(model);
    const report = { original: layerFacts(layers), numbering, versions: {}, pipeline: '', facts };
    return describeArchitecture(report as unknown as Report, config, null).block_configs;
  };
  each((blocks, style, seed) => {
    const model = nasDecoder(blocks, style);
    assert.equal(described(model, {}), entries(blocks));
    const block = mix(seed, 9) % BLOCKS;
    if (blocks[block]?.ffn === 'ffn')
      assert.equal(described(model, { [removeFfn.id]: [{ layer: block }] }), entries(without(blocks, block, 'ffn')));
  });
});

nas('what is left computes what a decoder without the branch computes, bit for bit', async () => {
  let count = 0;
  for (const [seed, blocks] of FAMILY.entries()) {
    const style = STYLES[seed % 2] as NasStyle;
    const block = blocks.findIndex(({ attention }, i) => attention === 'attention' && i === mix(seed, 3) % BLOCKS);
    if (block < 0 || count >= 8) continue;
    const model = nasDecoder(blocks, style);
    run(model, `remove-attention{layers=${block}},drop-dead`);
    const rest = nasDecoder(without(blocks, block, 'attention'), style);
    const { worst } = await verifyPair(located(rest), located(model), { batches: [2], tokens: [3, 5], seeds: [1] });
    assert.is(worst.absolute, 0, `${style} ${spell(blocks)}`);
    const { worst: moved } = await verifyPair(located(nasDecoder(blocks, style)), located(model), {
      batches: [2],
      tokens: [3, 5],
      seeds: [1],
    });
    assert.ok(moved.absolute > 0, `${style} ${spell(blocks)}: the attention of layer ${block} does something`);
    count++;
  }
  assert.is(count, 8);
});

nas.run();
