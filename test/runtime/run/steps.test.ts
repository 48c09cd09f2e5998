import * as assert from 'uvu/assert';
import { generate, hasCache, runSteps, type StepsResult, stepTokens } from '../../../runtime/run/steps.js';
import { openSession, type Session } from '../../../runtime/session/session.js';
import { readSignature } from '../../../runtime/signature/signature.js';
import { suite } from '../../helpers/suite.js';
import { located, type TinyOptions, tinyDecoder, VOCABULARY } from '../../helpers/tiny-decoder.js';

const test = suite('runtime: steps');

async function open(options: TinyOptions = {}) {
  const model = tinyDecoder(options);
  return { session: await openSession(located(model).location), signature: readSignature(model) };
}

const lastRow = ({ steps }: StepsResult): number[] => {
  const step = steps[steps.length - 1]!;
  return [...(step.logits ?? [])].slice(-VOCABULARY);
};

/** Relative L2 distance. */
function distance(a: readonly number[], b: readonly number[]): number {
  assert.is(a.length, b.length);
  let gap = 0;
  let norm = 0;
  for (const [i, value] of a.entries()) {
    gap += (value - b[i]!) ** 2;
    norm += value ** 2;
  }
  assert.ok(norm > 0);
  return Math.sqrt(gap / norm);
}

async function released<T>(session: Session, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } finally {
    await session.release();
  }
}

test('a decode step with the cache gives what a full prefill gives, for every row', async () => {
  const { session, signature } = await open();
  await released(session, async () => {
    for (const batch of [1, 3]) {
      const tokenIds = stepTokens(signature, batch, 7, 5);
      const steps = await runSteps(session, signature, { tokenIds });
      assert.is(steps.cached, true);
      assert.equal(
        steps.steps.map((step) => step.shape),
        [
          [batch, 7, VOCABULARY],
          [batch, 1, VOCABULARY],
        ],
      );
      assert.equal(
        steps.steps.map((step) => step.pastLength),
        [0, 7],
      );
      const full = await runSteps(session, signature, { tokenIds, decode: false });
      assert.ok(distance(lastRow(full), lastRow(steps)) < 1e-6);
      // And it matters: without its past the token scores differently.
      const alone = await runSteps(session, signature, {
        tokenIds: tokenIds.map((row) => row.slice(-1)),
        decode: false,
      });
      assert.ok(distance(lastRow(full), lastRow(alone)) > 1e-2);
    }
  });
});

test('one token at a time gives the same', async () => {
  const { session, signature } = await open();
  await released(session, async () => {
    const tokenIds = stepTokens(signature, 2, 5, 3);
    const once = await runSteps(session, signature, { tokenIds });
    const stepwise = await runSteps(session, signature, { tokenIds, stepwise: true });
    assert.ok(distance(lastRow(once), lastRow(stepwise)) < 1e-6);
  });
});

test('a model without a cache decodes by running the text again', async () => {
  const { session, signature } = await open({ attention: false });
  assert.is(hasCache(signature), false);
  await released(session, async () => {
    const steps = await runSteps(session, signature, { tokenIds: [[1, 2, 3]] });
    assert.is(steps.cached, false);
    assert.equal(
      steps.steps.map((step) => step.shape),
      [
        [1, 2, VOCABULARY],
        [1, 3, VOCABULARY],
      ],
    );
  });
});

test('a model of fixed length has a prefill only', async () => {
  const { session, signature } = await open({ attention: false, sequence: 4 });
  await released(session, async () => {
    const tokenIds = stepTokens(signature, 1, 9, 1);
    assert.is(tokenIds[0]?.length, 4);
    assert.is((await runSteps(session, signature, { tokenIds })).steps.length, 1);
  });
});

test('greedy continuation picks the best id at each step, with a cache as without', async () => {
  const { session, signature } = await open();
  await released(session, async () => {
    const found = await generate(session, signature, [1, 2, 3], 6);
    const expected = [1, 2, 3];
    for (let i = 0; i < 6; i++) {
      const row = lastRow(await runSteps(session, signature, { tokenIds: [expected], decode: false }));
      expected.push(row.indexOf(Math.max(...row)));
    }
    assert.equal(found, expected.slice(3));
  });
});

test('continuation stops on request, and where a model of fixed length is full', async () => {
  const { session, signature } = await open();
  await released(session, async () => {
    assert.is((await generate(session, signature, [1], 9, { onToken: (_, index) => index < 1 })).length, 2);
  });
  const fixed = await open({ attention: false, sequence: 4 });
  await released(fixed.session, async () => {
    assert.is((await generate(fixed.session, fixed.signature, [1, 2], 9)).length, 3);
  });
});

test('prompts outside the vocabulary are refused', async () => {
  const { session, signature } = await open();
  await released(session, async () => {
    const text = await generate(session, signature, [1, 99], 1).catch((error: Error) => error.message);
    assert.match(
      String(text),
      "OF_CANNOT_FEED graph input 'x0': no value can be made for it: token 99 is outside the vocabulary of 23",
    );
  });
});

test.run();
