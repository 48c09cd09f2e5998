/** Shapes are whatever a file says: what they ask for is counted before anything is made. */
import * as assert from 'uvu/assert';
import { type Model, parseModel } from '../../../ir/index.js';
import { makeFeeds } from '../../../runtime/run/feeds.js';
import { checkClaim } from '../../../runtime/run/room.js';
import { hasCache, runSteps, stepTokens } from '../../../runtime/run/steps.js';
import { withSession } from '../../../runtime/session/session.js';
import { readSignature } from '../../../runtime/signature/signature.js';
import { verifyPair } from '../../../runtime/verify/verify.js';
import { suite } from '../../helpers/suite.js';
import { located } from '../../helpers/tiny-decoder.js';

const test = suite('runtime: room');

/** A model that looks ids up and adds the last position of a cache; `more` are further nodes and weights. */
function model(ids: string, cache: string, present: string, more = '', inputs = ''): Model {
  const table = `float[8,4] table = {${Array.from({ length: 32 }, (_, i) => i / 32).join()}}, int64[1] axis = {2}`;
  return parseModel(`<ir_version: 8, opset_import: ["" : 17]>
g (int64[${ids}] ids, float[${cache}] past_key_values${inputs}) => (float[b,s,4] logits, float[${present}] present)
<${table}> {
  x = Gather(table, ids)
  fresh = Unsqueeze(x, one)
  one = Constant<value = int64[1] {1}>()
  present = Concat<axis = 2>(past_key_values, fresh)
  sum = ReduceSum<keepdims = 0>(present, axis)
  wide = Unsqueeze(sum, one)
  flat = ReduceSum<keepdims = 0>(wide, one)
  logits = Add(x, flat)
  ${more}
}`);
}

const failure = (work: () => unknown): string => {
  try {
    work();
  } catch (error) {
    return (error as Error).message;
  }
  return '';
};

const SMALL = model('b,s', 'b,1,p,4', 'b,1,t,4');

test('tokens that a shape fixes are counted before they are made', () => {
  for (const ids of ['1,268435456', '2147483648,1', '1048576,1048576', '1,8192']) {
    const signature = readSignature(model(ids, 'b,1,p,4', 'b,1,t,4'));
    const wanted = /OF_CANNOT_FEED graph input 'ids': .* its shape fixes \d+ x \d+ tokens, more than the 4096/;
    assert.match(
      failure(() => stepTokens(signature, 1, 6, 1)),
      wanted,
    );
    assert.match(
      failure(() => makeFeeds(signature)),
      wanted,
    );
  }
  assert.is(stepTokens(readSignature(model('1,4096', 'b,1,p,4', 'b,1,t,4')), 1, 6, 1)[0]?.length, 4096);
});

test('caches and other inputs that a shape makes large are counted before they are made', () => {
  for (const [cache, input] of [
    ['b,1,4503599627370496,4', 'past_key_values'],
    ['1,1048576,1048576,1048576', 'past_key_values'],
    ['1,1,4194304,4', 'past_key_values'],
  ] as const) {
    const signature = readSignature(model('b,s', cache, 'b,1,t,4'));
    assert.match(
      failure(() => makeFeeds(signature, { tokens: 4 })),
      new RegExp(`OF_CANNOT_FEED graph input '${input}': .*its shape \\[.*\\] is one of .*more than the 32 MiB`),
    );
  }
  const extra = readSignature(model('b,s', 'b,1,p,4', 'b,1,t,4', 'z = Neg(y)', ', float[65536,65536] y'));
  assert.match(
    failure(() => makeFeeds(extra, { tokens: 4 })),
    /graph input 'y': .*is one of 16\.0 GiB/,
  );
});

test('who asks for long sequences himself gets them', () => {
  const { tensors } = makeFeeds(readSignature(SMALL), { batch: 4, tokens: 100_000 });
  assert.equal(tensors.get('ids')?.dims, [4, 100_000]);
});

const CLAIMS: [node: string, what: RegExp][] = [
  [
    'k = Constant<value = int64[1] {268435456}>() z = ConstantOfShape(k)',
    /the output 'z' of ConstantOfShape would take 1\.00 GiB/,
  ],
  [
    'k = Constant<value = int64[2] {65536,65536}>() z = Expand(table, k)',
    /the output 'z' of Expand would take 16\.0 GiB/,
  ],
  ['k = Constant<value = int64[2] {4096,4096}>() z = Tile(table, k)', /the output 'z' of Tile would take 2\.00 GiB/],
];

test('tensors that a model makes out of nothing are refused before it is loaded', async () => {
  for (const [nodes, what] of CLAIMS) {
    const large = model('b,s', 'b,1,p,4', 'b,1,t,4', nodes);
    assert.match(
      failure(() => checkClaim(readSignature(large), 'm')),
      what,
    );
    let message = '';
    await verifyPair(located(large), located(large)).catch((error: Error) => {
      message = error.message;
    });
    assert.match(message, /^OF_MEMORY the model in memory: /);
  }
  const modest = model('b,s', 'b,1,p,4', 'b,1,t,4', 'k = Constant<value = int64[1] {1000}>() z = ConstantOfShape(k)');
  assert.is(
    failure(() => checkClaim(readSignature(modest), 'm')),
    '',
  );
  assert.is(readSignature(SMALL).claim, null);
});

test('a cache of static shape that grows all the same is fed as declared, and is no cache to go on from', async () => {
  for (const [ids, past, present] of [
    ['1,1', 63, 64],
    ['1,8', 0, 8],
  ] as const) {
    const fixed = model(ids, `1,1,${past},4`, `1,1,${present},4`);
    const signature = readSignature(fixed);
    assert.is(signature.past, past);
    assert.not(hasCache(signature));
    const { tensors, pastLength } = makeFeeds(signature);
    assert.equal(tensors.get('past_key_values')?.dims, [1, 1, past, 4]);
    assert.is(pastLength, past);
    // A past that must be there is not all zeros: an attention over it would show nothing.
    if (past > 0) assert.ok([...(tensors.get('past_key_values')?.data ?? [])].some((value) => Number(value) !== 0));
    const { location } = located(fixed);
    const tokenIds = stepTokens(signature, 1, 6, 1);
    const { steps } = await withSession(location, {}, (session) => runSteps(session, signature, { tokenIds }));
    assert.is(steps.length, 1);
    assert.equal(steps[0]?.outputs.get('present')?.dims, [1, 1, present, 4]);
    const { worst, positions } = await verifyPair(located(fixed), located(fixed));
    assert.is(worst.relative, 0);
    assert.ok(positions > 0);
  }
  const inPlace = readSignature(model('b,1', '1,1,64,4', '1,1,64,4'));
  assert.is(inPlace.past, null);
  assert.is(inPlace.caches[0]?.capacity, 64);
});

test.run();
