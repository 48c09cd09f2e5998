import * as assert from 'uvu/assert';
import { openModel } from '../../../ir/index.js';
import { ForcedScorer, forcedScores, type Scores, tokenBatches } from '../../../runtime/quality/forced.js';
import { measureQuality, QualityMeter, remembering } from '../../../runtime/quality/quality.js';
import { randomTokens } from '../../../runtime/run/random.js';
import { withSession } from '../../../runtime/session/session.js';
import { readSignature } from '../../../runtime/signature/signature.js';
import { TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { located, type TinyOptions, tinyDecoder, VOCABULARY } from '../../helpers/tiny-decoder.js';

const test = suite('runtime: quality');

const near = (found: number | undefined, expected: number, tolerance = 1e-6) =>
  assert.ok(Math.abs((found ?? Number.NaN) - expected) <= tolerance, `${found} is not ${expected}`);
const scores = (rows: number[][][]): Scores => ({
  logits: Float32Array.from(rows.flat(2)),
  shape: [rows.length, rows[0]?.length ?? 0, rows[0]?.[0]?.length ?? 0],
});
const messageOf = async (work: () => unknown): Promise<string> => {
  try {
    await work();
  } catch (error) {
    return (error as Error).message;
  }
  return 'nothing was refused';
};

test('KL, perplexity and agreement are those of the distributions at the positions with a next token', () => {
  const meter = new QualityMeter();
  const ln3 = Math.log(3);
  // Original: (1/2, 1/2), then (1/4, 3/4). Changed: (1/4, 3/4), then (3/4, 1/4). The last position has no next token.
  meter.add(
    { sequences: [[0, 1, 1]] },
    scores([
      [
        [0, 0],
        [0, ln3],
        [9, 0],
      ],
    ]),
    scores([
      [
        [0, ln3],
        [ln3, 0],
        [0, 9],
      ],
    ]),
  );
  const quality = meter.result();
  const first = 0.5 * Math.log(2) + 0.5 * Math.log(2 / 3);
  const second = 0.25 * Math.log(1 / 3) + 0.75 * ln3;
  near(quality.kl, (first + second) / 2);
  near(quality.maxKl, second);
  near(quality.klByPosition[0], first);
  near(quality.klByPosition[1], second);
  near(meter.originalPerplexity, Math.exp(-(Math.log(1 / 2) + Math.log(3 / 4)) / 2));
  near(quality.perplexity, Math.exp(-(Math.log(3 / 4) + Math.log(1 / 4)) / 2));
  near(quality.perplexityIncrease, quality.perplexity / meter.originalPerplexity - 1);
  // Equal scores: the lowest id is the most likely one, so the changed model's first choice is not the original's.
  assert.equal([quality.top1, quality.top5, quality.positions, quality.klByPosition.length], [0, 1, 2, 2]);
  // sum min(p, q): 1/4 + 1/2, then 1/4 + 1/4.
  near(quality.overlap, (3 / 4 + 1 / 2) / 2);
});

test("top-5 counts the changed model's choice among the original's five", () => {
  const original = [9, 8, 7, 6, 5, 4, 3];
  const choosing = (id: number) => original.map((_, i) => (i === id ? 20 : 0));
  for (const [id, top1, top5] of [
    [0, 1, 1],
    [4, 0, 1],
    [5, 0, 0],
  ] as const) {
    const meter = new QualityMeter();
    meter.add({ sequences: [[0, 1]] }, scores([[original, original]]), scores([[choosing(id), original]]));
    assert.equal([meter.result().top1, meter.result().top5], [top1, top5]);
  }
});

test('a changed model that gives no numbers is infinitely far off', () => {
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    const meter = new QualityMeter();
    const fine = [
      [0, 1],
      [0, 1],
    ];
    meter.add({ sequences: [[0, 1]] }, scores([fine]), scores([[[0, bad], fine[1] as number[]]]));
    const { kl, maxKl, perplexity, top1 } = meter.result();
    assert.equal([kl, maxKl, perplexity, top1], [Infinity, Infinity, Infinity, 0]);
  }
});

test('an original that gives no numbers, other shapes and no positions are errors', async () => {
  const fine = scores([
    [
      [0, 1],
      [0, 1],
    ],
  ]);
  const batch = { sequences: [[0, 1]] };
  const broken = scores([
    [
      [Number.NaN, 1],
      [0, 1],
    ],
  ]);
  assert.match(
    await messageOf(() => new QualityMeter().add(batch, broken, fine)),
    'the original gives scores that are',
  );
  assert.match(
    await messageOf(() => new QualityMeter().add(batch, fine, scores([[[0, 1, 2]]]))),
    'its shape is [1,2,2] and [1,1,3]',
  );
  assert.match(await messageOf(() => new QualityMeter().result()), 'no position to judge');
});

test('batches are of one length and as large as the memory for scores allows', () => {
  const signature = { ...readSignature(tinyDecoder()), vocabulary: 1000 };
  const row = (length: number) => new Array<number>(length).fill(1);
  const shapes = (bytes: number) =>
    tokenBatches([row(4), row(6), row(4), row(4), row(1)], signature, { bytes }).map(({ sequences }) => [
      sequences.length,
      sequences[0]?.length,
    ]);
  assert.equal(shapes(2 * 4 * 4 * 1000), [
    [2, 4],
    [1, 4],
    [1, 6],
  ]);
  assert.equal(shapes(1).length, 4);
});

async function scoresOf(options: TinyOptions, sequences: number[][], way?: 'batch' | 'rows' | 'tokens') {
  const candidate = located(tinyDecoder(options));
  return withSession(candidate.location, {}, (session) => {
    const signature = readSignature(candidate.model);
    const [batch] = tokenBatches(sequences, signature);
    return new ForcedScorer(session, signature, way ?? null).scores(batch ?? { sequences });
  });
}

test('every way through a model gives the same scores', async () => {
  const sequences = randomTokens(3, 3, 7, VOCABULARY);
  const whole = await scoresOf({}, sequences);
  assert.equal(whole.shape, [3, 7, VOCABULARY]);
  const others = [
    await scoresOf({}, sequences, 'rows'),
    await scoresOf({}, sequences, 'tokens'),
    await scoresOf({ sequence: 1 }, sequences),
    await scoresOf({ batch: 2 }, sequences.slice(0, 2)),
  ];
  for (const { logits, shape } of others) {
    assert.equal(shape.slice(1), [7, VOCABULARY]);
    for (const [i, value] of logits.entries()) near(value, whole.logits[i] as number, 1e-4);
  }
});

test('a fixed length cuts sequences and fills up short ones, a fixed batch repeats rows', async () => {
  const sequences = randomTokens(3, 1, 9, VOCABULARY);
  const candidate = located(tinyDecoder({ sequence: 5, batch: 2, attention: false }));
  const signature = readSignature(candidate.model);
  const batches = tokenBatches(sequences, signature);
  assert.equal(
    batches.map(({ sequences: [only] }) => only?.length),
    [5, 4],
  );
  const whole = await scoresOf({ attention: false }, sequences);
  await withSession(candidate.location, {}, async (session) => {
    for (const [index, batch] of batches.entries()) {
      const { logits, shape } = await forcedScores(session, signature, batch, 'batch');
      assert.equal(shape, [1, index === 0 ? 5 : 4, VOCABULARY]);
      for (const [i, value] of logits.entries()) near(value, whole.logits[index * 5 * VOCABULARY + i] as number, 1e-4);
    }
  });
});

test('further feeds reach the model', async () => {
  const candidate = located(tinyDecoder({}));
  const signature = readSignature(candidate.model);
  const [batch] = tokenBatches(randomTokens(1, 1, 4, VOCABULARY), signature);
  const seen: string[] = [];
  const spy = {
    run: async (feeds: ReadonlyMap<string, unknown>) => {
      seen.push(...feeds.keys());
      const dims = [1, 4, VOCABULARY];
      return new Map([['y0', { dtype: 'float' as const, dims, data: new Float32Array(4 * VOCABULARY) }]]);
    },
  };
  const gate = { dtype: 'float' as const, dims: [1], data: Float32Array.of(1) };
  await forcedScores(spy, signature, batch ?? { sequences: [] }, 'batch', new Map([['gate', gate]]));
  assert.ok(seen.includes('gate') && seen.includes('x0'));
});

test('what the original gave is kept up to a limit and computed again beyond', async () => {
  let runs = 0;
  const batches = [{ sequences: [[0, 1]] }, { sequences: [[1, 0]] }];
  const made = scores([
    [
      [0, 1],
      [1, 0],
    ],
  ]);
  const original = remembering(async () => {
    runs++;
    return made;
  }, made.logits.byteLength);
  for (let candidate = 0; candidate < 3; candidate++) {
    const { quality } = await measureQuality(batches, original, async () => made);
    assert.equal([quality.kl, quality.top1, quality.positions], [0, 1, 2]);
  }
  assert.is(runs, 1 + 3);
});

test('the fp16 tales12 is no distance from itself and predicts English far better than chance', async () => {
  const signature = readSignature(openModel(TALES12));
  const text = 'Once upon a time, there was a little girl named Lily. She loved to play outside in the sun.';
  const batches = tokenBatches([[...Buffer.from(text)]], signature);
  await withSession(TALES12, {}, async (session) => {
    const scorer = new ForcedScorer(session, signature);
    const { quality } = await measureQuality(
      batches,
      (batch) => scorer.scores(batch),
      (batch) => scorer.scores(batch),
    );
    assert.equal([quality.kl, quality.top1, quality.positions], [0, 1, text.length - 1]);
    assert.ok(quality.perplexity < 2, `perplexity ${quality.perplexity}`);
  });
});

test.run();
