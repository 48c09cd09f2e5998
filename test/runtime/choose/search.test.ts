/** The search for a plan, on costs that are known in full. */
import * as assert from 'uvu/assert';
import { type Move, searchMoves } from '../../../runtime/choose/search.js';
import { suite } from '../../helpers/suite.js';

const test = suite('search for a plan');

const move = (key: string, kl: number, secondsSaved: number, touches: readonly string[] = [key]): Move => ({
  key,
  kl,
  secondsSaved,
  touches,
});

/** KL adds up, and pairs cost what `extra` says on top. */
function world(moves: readonly Move[], extra: Readonly<Record<string, number>> = {}) {
  const asked: string[] = [];
  const measure = async (plan: readonly Move[]) => {
    asked.push(plan.map(({ key }) => key).join());
    const keys = plan.map(({ key }) => key);
    const pairs = Object.entries(extra).filter(([pair]) => pair.split('+').every((key) => keys.includes(key)));
    return { kl: plan.reduce((sum, { kl }) => sum + kl, 0) + pairs.reduce((sum, [, kl]) => sum + kl, 0) };
  };
  return { moves, measure, asked, maxEvaluations: 100 };
}

const within = (limit: number) => ({ kind: 'fastest' as const, isAllowed: ({ kl }: { kl: number }) => kl <= limit });
const keys = (plan: { moves: readonly Move[] } | null) => plan?.moves.map(({ key }) => key).join() ?? null;

test('the fastest plan within the budget is found, and nothing is measured twice', async () => {
  const moves = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06].map((kl, i) => move(`m${i}`, kl, 1));
  const request = world(moves);
  const { best, measured } = await searchMoves({ ...request, objective: within(0.1) });
  assert.is(keys(best), 'm0,m1,m2,m3');
  assert.is(new Set(request.asked).size, request.asked.length);
  assert.is(measured.length, request.asked.length);
});

test('a move that saves more for its KL comes first', async () => {
  const { best } = await searchMoves({ ...world([move('a', 0.05, 1), move('b', 0.06, 4)]), objective: within(0.07) });
  assert.is(keys(best), 'b');
});

test('two moves that do not go together are told apart by measuring', async () => {
  const request = world([move('a', 0.01, 1), move('b', 0.02, 1), move('c', 0.03, 1)], { 'a+b': 1 });
  const { best } = await searchMoves({ ...request, objective: within(0.05) });
  assert.is(keys(best), 'a,c');
});

test('moves that touch the same branch are not made together', async () => {
  const moves = [move('map 3', 0.01, 1, ['3']), move('remove 3', 0.02, 1.5, ['3']), move('map 4', 0.01, 1, ['4'])];
  const { measured } = await searchMoves({ ...world(moves), objective: within(1) });
  for (const { moves: plan } of measured) assert.not(plan.filter(({ touches }) => touches[0] === '3').length > 1);
});

test('with a speed to reach, the plan of the least KL is chosen', async () => {
  const moves = [move('a', 0.01, 1), move('b', 0.02, 1), move('c', 0.09, 3)];
  const request = world(moves, { 'a+b': 0.5 });
  const { best } = await searchMoves({ ...request, objective: { kind: 'best', secondsSaved: 2 } });
  assert.is(keys(best), 'c');
});

test('no plan is better than none that is over the budget, and evaluations are limited', async () => {
  const moves = [0.2, 0.3, 0.4].map((kl, i) => move(`m${i}`, kl, 1));
  assert.is((await searchMoves({ ...world(moves), objective: within(0.1) })).best, null);
  const many = Array.from({ length: 40 }, (_, i) => move(`m${i}`, 0.001 * i, 1));
  const { measured } = await searchMoves({ ...world(many), maxEvaluations: 5, objective: within(0.1) });
  assert.is(measured.length, 5);
});

test('moves that follow from a plan are tried beside it', async () => {
  const fuse = move('fuse 1-2', 0.001, 0.5);
  const following = (plan: readonly Move[]) => (plan.some(({ key }) => key === 'a') ? [fuse] : []);
  const { best } = await searchMoves({ ...world([move('a', 0.01, 1)]), following, objective: within(0.1) });
  assert.is(keys(best), 'a,fuse 1-2');
});

test.run();
