import * as assert from 'uvu/assert';
import { type LayerChoice, NO_CHANGE } from '../../../runtime/choose/choice.js';
import { gateFeeds, gateModel, openGated } from '../../../runtime/choose/gates.js';
import type { TensorMap } from '../../../runtime/session/tensor.js';
import { compareOutputs } from '../../../runtime/verify/compare.js';
import { TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { checkGates, DISABLED, feedsOf } from './gate-check.js';

const test = suite('runtime: gates');

test('plans on tales12 through gates are the rewritten graphs', async () => {
  assert.is((await checkGates(TALES12)).changing, 3);
});

test('a run reversed is the run applied in reverse', async () => {
  // Layers 3-6 without attention: two FFNs in reverse order are the same sum in which each reads the other.
  const removed: LayerChoice = { ...NO_CHANGE, removeAttention: [3, 4, 5, 6] };
  const forward = gateModel(TALES12);
  const reverse = gateModel(TALES12, { removeAttention: removed.removeAttention, runs: [[4, 5, 6]] });
  const logits = forward.signature.logits as string;
  const results: TensorMap[] = [];
  for (const [gated, choice] of [
    [forward, removed],
    [reverse, NO_CHANGE],
    [forward, { ...removed, runs: [[4, 5, 6]] }],
    [reverse, { ...NO_CHANGE, runs: [[6, 5, 4]] }],
  ] as const) {
    const session = await openGated(gated, DISABLED);
    try {
      results.push(
        await session.run(new Map([...feedsOf(gated.signature), ...gateFeeds(gated.plan, choice)]), [logits]),
      );
    } finally {
      await session.release();
    }
  }
  const [sequence, reversed, parallel, parallelOfReversed] = results as [TensorMap, TensorMap, TensorMap, TensorMap];
  const apart = (a: TensorMap, b: TensorMap) => compareOutputs(a, b).outputs[0]?.relative ?? Number.NaN;
  assert.ok(apart(sequence, reversed) > 1e-2, 'another order is another function');
  // In parallel there is no order.
  assert.ok(apart(parallel, parallelOfReversed) <= 2e-3, String(apart(parallel, parallelOfReversed)));
});

test('a layer that is not there, and what gates cannot express, are named', () => {
  const { plan } = gateModel(TALES12);
  assert.throws(() => gateFeeds(plan, { ...NO_CHANGE, removeFfn: [12] }), /OF_NO_SUCH_LAYER .*12/);
});

test.run();
