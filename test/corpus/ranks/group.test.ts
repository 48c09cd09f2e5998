/** The processes of a group: what they print, how they end together, what they refuse. */
import { appendFileSync, cpSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { fuse } from '../../../api/index.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';
import { findCorpus } from '../folder.js';
import { cut } from './check-run.js';
import { runRanks } from './processes.js';

const test = suite('corpus: processes of ranks');
const TALES12 = join(findCorpus(), 'tales12/tales12-ts17-fp32.onnx');

test('the text goes to stdout of rank 0, the times to stderr; sampling is repeated by its seed', () =>
  inWorkspace(async (folder) => {
    const out = join(folder, 'out');
    await cut(TALES12, out, 2);
    const say = (...argv: string[]) => runRanks(out, 2, ['--prompt', 'Once upon a time', '--tokens', '24', ...argv]);
    const [greedy, other] = await say();
    assert.match(greedy?.stdout ?? '', /^Once upon a time, there was a/);
    assert.is(other?.stdout, '');
    assert.match(greedy?.stderr ?? '', /2 ranks, 25 collectives a token; .* tokens a second: .* in collectives/);
    const sampled = [
      await say('--temperature', '1.5', '--seed', '7'),
      await say('--temperature', '1.5', '--seed', '7'),
    ];
    assert.is(sampled[0]?.[0]?.stdout, sampled[1]?.[0]?.stdout);
    assert.is.not(sampled[0]?.[0]?.stdout, greedy?.stdout);
  }));

test('a rank that dies ends the others, which name it, within ten seconds', () =>
  inWorkspace(async (folder) => {
    const out = join(folder, 'out');
    await cut(TALES12, out, 3);
    for (const victim of [2, 0]) {
      let killed = 0;
      const ended = await runRanks(out, 3, ['--prompt', 'Once', '--tokens', '1000000'], async (ranks) => {
        await inStep(ranks.map(({ pid }) => pid as number));
        killed = performance.now();
        ranks[victim]?.kill('SIGKILL');
      });
      assert.ok(performance.now() - killed < 10_000, String(performance.now() - killed));
      for (const [rank, { code, stderr }] of ended.entries()) {
        if (rank === victim) continue;
        assert.is(code, 1);
        assert.is(stderr, `run_ranks: rank ${rank} ends: rank ${victim} died\n`);
      }
    }
  }));

/** Waits until all have computed for a while: loading torch is over, and each watches the others. */
async function inStep(pids: readonly number[]): Promise<void> {
  const threads = (pid: number): number =>
    Number(/^Threads:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  const maps = (pid: number): boolean => readFileSync(`/proc/${pid}/maps`, 'utf8').includes('weights.onnx.data');
  while (!pids.every((pid) => threads(pid) > 1 && maps(pid))) await sleep(100);
  await sleep(1000);
}

test('what does not belong together is refused', () =>
  inWorkspace(async (folder) => {
    const [a, b] = [join(folder, 'a'), join(folder, 'b')];
    await cut(TALES12, a, 2);
    const said = async (place: string | readonly string[], ranks: number): Promise<string> => {
      const ended = await runRanks(place, ranks, ['--prompt', 'Once', '--tokens', '2']);
      for (const { code } of ended) assert.ok(code === 1 || code === 2, String(code));
      return ended.map(({ stderr }) => stderr).join('');
    };
    assert.match(await said(a, 3), /the folder is cut for 2 ranks, and 3 processes were started/);
    // Another model of the same shapes: only what is in the files tells.
    await fuse({ input: TALES12, output: join(folder, 'other.onnx'), pipeline: 'strip-metadata', verify: false });
    await cut(join(folder, 'other.onnx'), b, 2);
    assert.match(await said([a, b], 2), /rank 1 has another ranks\.json than rank 0/);
    const data = join(a, 'rank_1', 'weights.onnx.data');
    cpSync(data, join(folder, 'kept'));
    appendFileSync(data, 'x');
    assert.match(await said(a, 2), /rank_1\/weights\.onnx\.data is not what ranks\.json describes/);
    renameSync(join(folder, 'kept'), data);
    rmSync(join(a, 'rank_1', 'segment_003.onnx'));
    assert.match(await said(a, 2), /rank_1\/segment_003\.onnx is missing/);
  }));

test.run();
