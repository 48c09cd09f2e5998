import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type BenchResult, rowOf } from '../../runtime/bench/bench.js';
import { parseDevice } from '../../runtime/choose/cost.js';
import { TALES12 } from '../helpers/paths.js';
import { suite } from '../helpers/suite.js';
import { inWorkspace, runCli } from '../helpers/workspace.js';

const test = suite('bench');
const QUICK = ['--prompt', '5', '--decode', '2', '--rounds', '2', '--quiet'];

test('ratios are taken within a round, tokens count for all sequences', () => {
  // The machine was twice as slow in the second round, for both.
  const row = rowOf(
    4,
    'prefill',
    [
      [10, 20, 10],
      [5, 10, 8],
    ],
    25,
  );
  assert.is(row.ratio?.median, 0.5);
  assert.is(row.ms[0]?.median, 10);
  assert.equal(row.tokensPerSecond, [10_000, 12_500]);
  assert.is(rowOf(4, 'decode', [[10, 10, 10]], 25).tokensPerSecond[0], 400);
  assert.is(rowOf(1, 'decode', [[10]], 25).ratio, null);
});

test('two models take turns, and the figures are a table and JSON', () =>
  inWorkspace(async (folder) => {
    const [json, device] = [join(folder, 'bench.json'), join(folder, 'device.json')];
    const argv = [
      'bench',
      TALES12,
      TALES12,
      '--batch',
      '1,2',
      ...QUICK,
      '--json',
      json,
      '--calibrate',
      device,
      '--context',
      '32',
    ];
    const { code, stdout, stderr } = await runCli(...argv);
    assert.is(code, 0, stderr);
    assert.match(stdout, /b over a/);
    const bench = JSON.parse(readFileSync(json, 'utf8')) as BenchResult & { bytesPerSecond: number };
    assert.equal(
      bench.rows.map(({ batch, phase }) => `${batch} ${phase}`),
      ['1 prefill', '1 decode', '2 prefill', '2 decode'],
    );
    for (const { ms, ratio, tokensPerSecond } of bench.rows) {
      assert.ok(ms.length === 2 && ms.every(({ p25, median, p75 }) => p25 > 0 && p25 <= median && median <= p75));
      assert.ok(ratio && ratio.median > 0 && tokensPerSecond.every((each) => each > 0));
    }
    // The head of tales12 is its table, stored twice: one is looked up and not read.
    assert.ok(
      bench.models.every(({ weightBytes }) => weightBytes > 4e6 && weightBytes < 5e6),
      String(bench.models[0]?.weightBytes),
    );
    assert.ok(bench.bytesPerSecond > 1e8);
    assert.ok(parseDevice(readFileSync(device, 'utf8'), device).bytesPerSecond > 1e8);
  }));

test('what cannot be timed is one line', async () => {
  const refused: [string[], number, RegExp][] = [
    [['bench', TALES12, '--batch', '0'], 2, /OF_USAGE --batch: '0' is no count/],
    [['bench', TALES12, '--batch', '1,x'], 2, /OF_USAGE --batch: expected numbers, found '1,x'/],
    [['bench', 'none.onnx'], 2, /OF_NO_SUCH_FILE none.onnx/],
    [['bench', TALES12, '--json=no-such-folder/x.json'], 2, /OF_USAGE .*folder does not exist/],
    [['bench', TALES12, '--provider', 'cuda'], 1, /OF_NO_PROVIDER/],
  ];
  for (const [argv, expected, line] of refused) {
    const { code, stderr } = await runCli(...argv, '--quiet');
    assert.match(stderr, line);
    assert.is(stderr.trimEnd().split('\n').length, 1, stderr);
    assert.is(code, expected, stderr);
  }
});

test.run();
