/** Ranks in real processes, each with stock onnxruntime of Python, over gloo: what they say is what the whole model says. */
import { basename, join } from 'node:path';
import * as assert from 'uvu/assert';
import { type ShardReport, shard } from '../../../api/index.js';
import { openModel } from '../../../ir/index.js';
import { forcedScores, generate, readSignature, withSession } from '../../../runtime/index.js';
import { readSaved, runRanks, torchPython } from './processes.js';

const TOKENS = 64;
/** For a model whose tokens are bytes. */
export const ONCE = [...Buffer.from('Once upon a time')];

/** Cuts a model for stock onnxruntime, unchecked. Skips where nothing could run it. */
export function cut(input: string, output: string, ranks: number): Promise<ShardReport> {
  torchPython();
  const how = { style: 'external', lmHead: 'gather', refuse: false, verify: false, force: false } as const;
  return shard({ input, output, ranks, ...how });
}

/**
 * Runs the ranks of the model file `path` on 64 tokens, and holds what they say and every logit, of prefill and decode, against
 * the model's own.
 */
export async function checkRun(
  path: string,
  folder: string,
  ranks: number,
  prompt: readonly number[],
): Promise<ShardReport> {
  const out = join(folder, `${basename(path)}-${ranks}`);
  const report = await cut(path, out, ranks);
  const save = join(folder, 'saved');
  const argv = ['--ids', prompt.join(), '--tokens', String(TOKENS), '--save', save];
  for (const { code, stderr } of await runRanks(out, ranks, argv)) assert.is(code, 0, stderr);
  const { tokens, logits, seconds, collectives } = readSaved(save);
  const model = openModel(path);
  const signature = readSignature(model);
  await withSession(path, { optimization: 'disabled' }, async (session) => {
    assert.equal(tokens, (await generate(session, signature, prompt, tokens.length)).slice(0, tokens.length), path);
    const sequence = [...prompt, ...tokens.slice(0, -1)];
    const whole = await forcedScores(session, signature, { sequences: [sequence] }, 'batch');
    const steps = signature.caches.length > 0 ? whole.logits : repeated(whole.logits, prompt.length, sequence.length);
    assert.is(logits.length, steps.length);
    const error = relative(steps, logits);
    assert.ok(error <= 1e-5, `${path} on ${ranks} ranks: ${error}`);
  });
  assert.is(seconds.length, tokens.length);
  assert.is(collectives, report.token.allReduces + report.token.allGathers);
  return report;
}

/** Without caches every step gives all positions again. */
function repeated(whole: Float32Array, prompt: number, length: number): Float32Array {
  const width = whole.length / length;
  const steps = Array.from({ length: length - prompt + 1 }, (_, i) => whole.subarray(0, (prompt + i) * width));
  const all = new Float32Array(steps.reduce((sum, { length: count }) => sum + count, 0));
  let at = 0;
  for (const step of steps) {
    all.set(step, at);
    at += step.length;
  }
  return all;
}

function relative(expected: Float32Array, found: Float32Array): number {
  let [error, size] = [0, 0];
  for (const [i, value] of expected.entries()) {
    error += (value - (found[i] as number)) ** 2;
    size += value ** 2;
  }
  return Math.sqrt(error / size);
}
