/** Options as somebody gives them whom no compiler stops. */
import * as assert from 'uvu/assert';
import { bench, Diagnostic, fuse, golden, inspect, open, plan, recover, save, shard, verify } from '../../api/index.js';
import { TALES12 } from '../helpers/paths.js';
import { suite } from '../helpers/suite.js';

const test = suite('options');

async function refusal(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof Diagnostic) return error.message;
    throw error;
  }
  return 'nothing was refused';
}

// biome-ignore lint/suspicious/noExplicitAny: what JavaScript lets through
const any = (value: unknown): any => value;

test('an option that there is not is refused, and the one that was meant is named', async () => {
  const given = any({ input: TALES12, output: 'out.onnx', removeAttentions: [3] });
  const refused = "OF_USAGE removeAttentions: there is no such option; did you mean 'removeAttention'?";
  assert.is(await refusal(() => fuse(given)), refused);
  assert.is(await refusal(() => recover(given)), refused);
  assert.match(await refusal(() => fuse(any({ removeAttn: [3] }))), /did you mean 'removeAttention'\?/);
  assert.match(await refusal(() => verify(TALES12, TALES12, any({ max_kl: 1 }))), /^OF_USAGE max_kl: there is no such/);
  assert.match(await refusal(() => save(open(TALES12), 'out.onnx', any({ hashes: true }))), /did you mean 'hash'/);
});

test('a value of another type is refused with what is expected', async () => {
  const cases: readonly [unknown, RegExp][] = [
    [
      { input: TALES12, output: 'o', removeAttention: '3-5' },
      /removeAttention: expected number\[\] \| object, found "3-5"/,
    ],
    [{ input: TALES12, output: 'o', removeAttention: [3, '4'] }, /removeAttention: expected .*, found \[3, "4"\]/],
    [{ input: TALES12, output: 'o', runs: [3, 4] }, /runs: expected number\[\]\[\], found \[3, 4\]/],
    [{ input: TALES12, output: 'o', keepLast: Number.NaN }, /keepLast: expected number, found NaN/],
    [{ input: TALES12, output: 'o', norm: 'none' }, /norm: expected "fold" \| "last", found "none"/],
    [{ input: TALES12, output: 'o', verify: 'no' }, /verify: expected boolean, found "no"/],
    [{ input: TALES12 }, /output: expected string, found nothing/],
    ['in.onnx', /expected an object of options, found "/],
  ];
  for (const [request, expected] of cases) assert.match(await refusal(() => fuse(any(request))), expected);
  assert.match(
    await refusal(() => plan(any({ model: TALES12, data: 'a.txt' }))),
    /data: expected string\[\], found "a.txt"/,
  );
  assert.match(await refusal(() => shard(any({ input: TALES12, output: 'o', ranks: '2' }))), /ranks: expected number/);
});

test('so are models and paths', async () => {
  assert.match(await refusal(() => open(any(undefined))), /path: expected string, found nothing/);
  assert.match(await refusal(() => inspect(any(null))), /model: expected object \| string, found null/);
  assert.match(await refusal(() => verify(any(3), TALES12)), /a: expected object \| string, found 3/);
  assert.match(await refusal(() => bench(any('in.onnx'))), /models: expected string\[\], found "/);
  assert.match(await refusal(() => golden(TALES12, any(undefined))), /expected: expected string, found nothing/);
});

test.run();
