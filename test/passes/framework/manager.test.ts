/** What the manager asks of passes: facts, effects, and the two decoders of a merged model alike. */
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Graph } from '../../../ir/index.js';
import { Diagnostic } from '../../../ir/index.js';
import {
  definePass,
  effectOf,
  extendRegistry,
  factsAs,
  factsOf,
  parsePipeline,
  referenceSteps,
  registry,
  runPipeline,
} from '../../../passes/index.js';
import { GOLDEN_ROOT, readGoldenTree } from '../../helpers/golden.js';
import { goldenModel } from '../../helpers/golden-check.js';
import { suite } from '../../helpers/suite.js';

const test = suite('manager');
const { goldens } = readGoldenTree(GOLDEN_ROOT, [...registry.keys()]);

/** A decoder twice under an If: with caches, and without. */
function mergedDecoder() {
  const golden = goldens.find(({ name }) => name === join('pipeline', 'merged-decoder'));
  assert.ok(golden);
  return goldenModel(golden.input);
}

const BASE = { id: 'mine', summary: 'x', effect: 'exact', options: {}, statistics: { runs: 'runs' } } as const;

interface Seen {
  readonly inputs: number;
  readonly layers: number;
}

/** A plugin that states what it sees in each decoder: the one with caches reads more. */
const look = (comparable?: (fact: Seen) => unknown) =>
  definePass({
    ...BASE,
    scope: 'decoder',
    facts: factsAs<Seen>({ describe: (facts) => facts.map(String), ...(comparable ? { comparable } : {}) }),
    run({ graph, blocks, count, fact }) {
      count('runs');
      fact({ inputs: inputsOf(graph), layers: blocks().layers.length });
    },
  });

function inputsOf(graph: Graph): number {
  const values = [...graph.nodes()].flatMap((node) => node.inputs.filter((value) => value?.isInput));
  return new Set(values).size;
}

test('a pass with the scope of a decoder runs on both of a merged model, a plugin too, and is reported once', () => {
  const known = extendRegistry(registry, [look(({ layers }) => layers)], '');
  const result = runPipeline(mergedDecoder(), parsePipeline('mine', known));
  const facts = factsOf(result, look());
  assert.is(facts.length, 1);
  assert.ok((facts[0]?.inputs ?? 0) > 2, 'the decoder with caches speaks for both');
  assert.is(result.steps[0]?.statistics['runs'], 1);
});

test('decoders to which not the same was done are refused, whatever pass did it', () => {
  const known = extendRegistry(registry, [look()], '');
  let thrown: unknown;
  try {
    runPipeline(mergedDecoder(), parsePipeline('mine', known));
  } catch (error) {
    thrown = error;
  }
  assert.ok(thrown instanceof Diagnostic && thrown.code === 'OF_UNLIKE_BRANCHES', String(thrown));
});

test('removed FFNs and parallel blocks of a merged decoder are the same in both branches', () => {
  const pipeline = 'parallelize-blocks{windows=0-1},concat-ffn,concat-attention';
  const { facts } = runPipeline(mergedDecoder(), parsePipeline(pipeline, registry));
  assert.equal(Object.keys(facts), ['parallelize-blocks', 'concat-ffn']);
  const removed = runPipeline(mergedDecoder(), parsePipeline('remove-ffn{layers=1}', registry));
  assert.equal(removed.facts, { 'remove-ffn': [{ layer: 1 }] });
});

test('an option can promise less than its pass, and then the reference of the algebra check runs the step', () => {
  const steps = (text: string) => parsePipeline(text, registry);
  const effects = (text: string) => steps(text).map(effectOf);
  assert.equal(effects('instrument,instrument{window=2}'), ['exact', 'exact']);
  assert.equal(effects('instrument{reverse=0-1}'), ['changes-function']);
  assert.is(referenceSteps(steps('instrument,instrument{reverse=0-1}')).length, 1);
});

test('a preparation of a plugin is one: the reference runs it, and layers are found after it', () => {
  const known = extendRegistry(registry, [{ ...BASE, isPreparation: true, run() {} }], '');
  const steps = parsePipeline('mine,concat-ffn', known);
  assert.equal(
    referenceSteps(steps).map(({ pass }) => pass.id),
    ['mine'],
  );
});

test.run();
