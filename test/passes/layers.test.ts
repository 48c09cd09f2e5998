/** The one answer to which layers a model has. */
import * as assert from 'uvu/assert';
import { printModel } from '../../ir/index.js';
import { layersOf, plainDecoder } from '../../passes/index.js';
import { workOf } from '../../runtime/index.js';
import { goldenInput } from '../helpers/golden-check.js';
import { suite } from '../helpers/suite.js';

const test = suite('layers of a model');

const shownLayers = (model: Parameters<typeof layersOf>[0]) =>
  layersOf(model).layers.map(({ index, attention, ffn }) => [index, attention !== null, ffn?.ffn.width ?? null]);

test('layers that are functions are found, and the model stays as it is', () => {
  const model = goldenInput('inline-functions/layers');
  const before = printModel(model);
  assert.equal(shownLayers(model), [
    [0, false, 6],
    [1, false, 6],
  ]);
  const { attentions, ffns } = workOf(model);
  assert.equal([attentions, ffns], [0, 2]);
  assert.is(printModel(model), before);
});

test('a merged decoder has the layers of its branch with caches', () => {
  const model = goldenInput('pipeline/merged-decoder');
  const before = printModel(model);
  assert.equal(shownLayers(model), [
    [0, true, 6],
    [1, true, 10],
  ]);
  const [first] = layersOf(model).layers;
  assert.equal(
    first?.attention?.attention.kvInputs.map(({ name }) => name),
    ['past_0_key', 'past_0_value'],
  );
  // What belongs to a layer are values of the model, not of a copy.
  assert.is(first?.attention?.attention.kvInputs[0], model.graph.value('past_0_key'));
  const { attentions, ffns } = workOf(model);
  assert.equal([attentions, ffns], [2, 2]);
  assert.is(printModel(model), before);
});

test('the plain decoder of each phase is one branch, with the inputs that it reads', () => {
  const model = goldenInput('pipeline/merged-decoder');
  const [prompt, token] = [plainDecoder(model, 'prompt'), plainDecoder(model, 'token')];
  for (const plain of [prompt, token]) {
    assert.not([...plain.graph.nodes()].some(({ op }) => op === 'If'));
    assert.equal(shownLayers(plain), shownLayers(model));
  }
  const names = ({ graph }: typeof model) => graph.inputs.map(({ name }) => name);
  assert.equal(names(prompt), ['ids']);
  assert.equal(names(token), ['ids', 'past_0_key', 'past_0_value', 'past_1_key', 'past_1_value']);
  const single = goldenInput('pipeline/adds');
  assert.is(plainDecoder(single, 'prompt'), single, 'nothing is copied where nothing is to be picked');
});

test.run();
