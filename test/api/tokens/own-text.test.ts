/** Text that a model writes: drawn from its own distribution, the same for the same seed. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { writeOwnText } from '../../../api/tokens/own-text.js';
import { saveModel } from '../../../ir/index.js';
import { forcedScores } from '../../../runtime/quality/forced.js';
import { drawFrom, sampleRows, uniformAt } from '../../../runtime/run/sample.js';
import { withSession } from '../../../runtime/session/session.js';
import { readSignature } from '../../../runtime/signature/signature.js';
import { suite } from '../../helpers/suite.js';
import { located, type TinyOptions, tinyDecoder, VOCABULARY } from '../../helpers/tiny-decoder.js';
import { inWorkspace } from '../../helpers/workspace.js';

const test = suite('own text');

test('the same seed writes the same, another seed another text, however many rows at once', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'model.onnx');
    await saveModel(tinyDecoder(), path);
    const done: number[] = [];
    const talk = { note: () => {}, done: () => {}, progress: (_: string, at: number) => void done.push(at) };
    const first = await writeOwnText(path, { tokens: 50, length: 12, rows: 4, talk });
    assert.is(first.source, 'written by the model (temperature 0.9, seed 1)');
    assert.equal([first.tokens, first.cut, first.sequences.length], [60, false, 5]);
    assert.ok(first.sequences.every((row) => row.length === 12 && row.every((id) => id >= 0 && id < VOCABULARY)));
    assert.ok(done.length > 10 && done.every((at, i) => i === 0 || at > (done[i - 1] as number)), done.join());
    const again = await writeOwnText(path, { tokens: 50, length: 12, rows: 2 });
    assert.equal(again.sequences, first.sequences);
    const other = await writeOwnText(path, { tokens: 50, length: 12, rows: 4, seed: 2 });
    assert.is.not(other.sequences.join(), first.sequences.join());
    // No config beside the model: documents begin with any token.
    assert.ok(new Set(first.sequences.map(([id]) => id)).size > 1);
    assert.match(
      await writeOwnText(path, { temperature: 0 }).then(String, String),
      /OF_USAGE temperature.*more than 0/,
    );
  }));

test('documents begin as the configs say, and after an end another begins', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'model.onnx');
    await saveModel(tinyDecoder(), path);
    const config = (ends: number | number[]) =>
      writeFileSync(join(folder, 'generation_config.json'), JSON.stringify({ bos_token_id: 3, eos_token_id: ends }));
    const everything = Array.from({ length: VOCABULARY }, (_, id) => id).filter((id) => id !== 3);
    config(everything);
    const { sequences } = await writeOwnText(path, { tokens: 120, length: 20 });
    for (const row of sequences) {
      // Whatever is drawn ends the document, unless it is the token that begins one.
      for (const [at, id] of row.entries()) {
        if (at === 0 || row[at - 1] !== 3) assert.is(id, 3, row.join());
      }
    }
    assert.ok(sequences.flat().some((id) => id !== 3));
    // One token for both begins a document once.
    config(3);
    const both = await writeOwnText(path, { tokens: 120, length: 20 });
    assert.ok(both.sequences.every(([id]) => id === 3));
    assert.ok(both.sequences.some((row) => row.some((id, at) => id === 3 && at > 0 && row[at + 1] !== 3)));
  }));

/** Shares of the tokens that come after token 5, as drawn in many rows, and as the model says. */
async function sharesAfter(options: TinyOptions, temperature: number) {
  const { location, model } = located(tinyDecoder(options));
  const signature = readSignature(model);
  return withSession(location, {}, async (session) => {
    const rows = Array.from({ length: 3000 }, (_, i) => i);
    const request = { rows, length: 2, temperature, seed: 7, begin: 5, ends: new Set<number>() };
    const written = await sampleRows(session, signature, request);
    const drawn = new Float64Array(VOCABULARY);
    for (const [, id] of written) drawn[id as number] = (drawn[id as number] ?? 0) + 1 / rows.length;
    const { logits } = await forcedScores(session, signature, { sequences: [[5]] }, 'batch');
    const softmax = (heat: number): number[] => {
      const shares = [...logits].map((score) => Math.exp(score / heat));
      const sum = shares.reduce((a, b) => a + b, 0);
      return shares.map((share) => share / sum);
    };
    const far = (shares: readonly number[]) =>
      shares.reduce((sum, share, i) => sum + Math.abs(share - (drawn[i] ?? 0)) / 2, 0);
    return { far, softmax };
  });
}

test('tokens are as frequent as the model says, at the temperature that was asked for', async () => {
  for (const temperature of [0.9, 2]) {
    const { far, softmax } = await sharesAfter({}, temperature);
    // Of 3000 draws among 23 ids the shares are some 3 % off.
    const found = far(softmax(temperature));
    assert.ok(found < 0.06, `${found} from its own distribution`);
    for (const other of [softmax(4 * temperature), softmax(temperature / 3)]) {
      assert.ok(far(other) > 0.1, `${far(other)} from another temperature's`);
    }
  }
});

test('what is drawn behind the caches is what a run of the whole row gives, with and without caches', async () => {
  for (const options of [{}, { attention: false }] satisfies TinyOptions[]) {
    const { location, model } = located(tinyDecoder(options));
    const signature = readSignature(model);
    await withSession(location, {}, async (session) => {
      const request = {
        rows: [0, 1, 2, 3],
        length: 16,
        temperature: 0.9,
        seed: 3,
        begin: null,
        ends: new Set<number>(),
      };
      const sequences = await sampleRows(session, signature, request);
      const { logits, shape } = await forcedScores(session, signature, { sequences }, 'batch');
      for (const [row, ids] of sequences.entries()) {
        for (let at = 1; at < ids.length; at++) {
          const start = (row * shape[1] + at - 1) * VOCABULARY;
          const expected = drawFrom(logits, start, VOCABULARY, 0.9, uniformAt(3, row, at));
          assert.is(ids[at], expected, `row ${row}, token ${at}`);
        }
      }
    });
  }
});

test.run();
