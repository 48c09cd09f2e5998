/** Rank files as NVIDIA's Polygraphy names them: the same models without a ranks.json. */
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { shard } from '../../../api/index.js';
import { TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('ranks of Polygraphy');

/** tales12 cut for TensorRT, in files called as Polygraphy calls them. */
async function cut(folder: string, ranks: number): Promise<string> {
  const output = join(folder, 'ours');
  await shard({
    input: TALES12,
    output,
    ranks,
    style: 'trt',
    lmHead: 'gather',
    refuse: false,
    verify: false,
    force: false,
  });
  const theirs = join(folder, 'theirs');
  mkdirSync(theirs);
  for (let rank = 0; rank < ranks; rank++) {
    cpSync(join(output, `rank_${rank}_model.onnx`), join(theirs, `tales12_tp${ranks}_rank${rank}.onnx`));
  }
  return theirs;
}

test('they are run together and held against the original', () =>
  inWorkspace(async (folder) => {
    const theirs = await cut(folder, 2);
    const { code, stdout, stderr } = await runCli('verify', TALES12, theirs, '--json', '--quiet');
    assert.is(code, 0, stderr);
    const { worst, notes } = JSON.parse(stdout);
    assert.ok(worst.relative > 0 && worst.relative < 5e-3, String(worst.relative));
    assert.equal(notes, []);
  }));

test('attentions that every rank has whole are named', () =>
  inWorkspace(async (folder) => {
    // Four heads do not divide by three.
    const theirs = await cut(folder, 3);
    const { code, stdout, stderr } = await runCli('verify', TALES12, theirs, '--json', '--quiet');
    assert.is(code, 0, stderr);
    const { notes } = JSON.parse(stdout) as { notes: string[] };
    assert.is(notes.length, 1);
    assert.match(notes[0] ?? '', /whole attention of layers 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11/);
  }));

test('a rank that is absent is named', () =>
  inWorkspace(async (folder) => {
    const theirs = await cut(folder, 2);
    rmSync(join(theirs, 'tales12_tp2_rank1.onnx'));
    const { code, stderr } = await runCli('verify', TALES12, theirs, '--quiet');
    assert.is(code, 2);
    assert.match(stderr, /OF_RANKS .*rank 1 of 2 is absent/);
  }));

test.run();
