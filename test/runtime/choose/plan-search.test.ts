/** The search for a plan, over measurements that are made up. */
import * as assert from 'uvu/assert';
import { isWithin, type PlanPoint, type PlanScores, type Quality, searchPlans } from '../../../runtime/index.js';
import { suite } from '../../helpers/suite.js';

const test = suite('runtime: search');

const quality = (part: Partial<Record<keyof Quality, unknown>> = {}): Quality =>
  ({ kl: 0.01, perplexityIncrease: 0.01, top1: 0.99, ...part }) as Quality;
const NO_LIMIT = { maxKl: null, maxPerplexityIncrease: null, minTop1: null };

test('what is no number is within no budget', () => {
  const budgets = [
    ['kl', { ...NO_LIMIT, maxKl: 1e6 }],
    ['perplexityIncrease', { ...NO_LIMIT, maxPerplexityIncrease: 1e6 }],
    ['top1', { ...NO_LIMIT, minTop1: 0 }],
  ] as const;
  for (const [score, budget] of budgets) {
    assert.ok(isWithin(quality(), budget));
    // As they come from a measurement, and null as older files hold them.
    for (const value of [null, undefined, Number.NaN, ...(score === 'top1' ? [] : [Number.POSITIVE_INFINITY])]) {
      assert.not(isWithin(quality({ [score]: value }), budget), `${score}: ${value}`);
    }
  }
  assert.ok(isWithin(quality({ kl: 0.05 }), { ...NO_LIMIT, maxKl: 0.1 }, 0.5));
  assert.not(isWithin(quality({ kl: 0.06 }), { ...NO_LIMIT, maxKl: 0.1 }, 0.5));
  assert.not(isWithin(quality({ top1: 0.94 }), { ...NO_LIMIT, minTop1: 0.9 }, 0.5));
});

test('the neighbours of a layer are those next to it in the model, also over a gap in the numbers', async () => {
  // No layer 10; to remove 9 costs least, 11 most.
  const layers = Array.from({ length: 21 }, (_, i) => i).filter((layer) => layer !== 10);
  const costs = layers.map((layer) => (layer === 9 ? 0 : layer === 11 ? 1 : 0.1));
  const scores = { layers, withoutAttention: costs } as unknown as PlanScores;
  const klOf = (gone: readonly number[]) => gone.reduce((sum, layer) => sum + (costs[layers.indexOf(layer)] ?? 0), 0);
  const tried: string[] = [];
  const evaluate = (gone: readonly number[]): Promise<PlanPoint> => {
    tried.push(gone.join());
    return Promise.resolve({
      ...{ removeAttention: gone, removeFfn: [], runs: [], windows: [], quality: quality({ kl: klOf(gone) }) },
      ...{ predictedSecondsPerToken: 1, predictedSpeedup: 1 + gone.length / 10 },
    });
  };
  const options = { share: 1, scores, removable: layers, maxEvaluations: 12, beam: 1 };
  await searchPlans({ ...options, budget: { ...NO_LIMIT, maxKl: 5 } }, evaluate);
  assert.ok(tried.includes('9') && tried.includes('8,9'), tried.join(' '));
  assert.ok(tried.includes('9,11'), tried.join(' '));
});

test.run();
