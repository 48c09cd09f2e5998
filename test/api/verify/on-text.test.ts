/** `onnx-fuse verify --data`, on the committed trained model. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('verify on text');
const TEXT = 'Once upon a time there was a little girl who had a red ball.';

test('a model is as good as itself, and text alone is told from random tokens', () =>
  inWorkspace(async (folder) => {
    const data = join(folder, 'text.txt');
    writeFileSync(data, TEXT);
    const { code, stdout } = await runCli(
      'verify',
      TALES12,
      TALES12,
      '--data',
      data,
      '--max-kl',
      '0',
      '--json',
      '--no-timing',
      '--quiet',
    );
    assert.is(code, 0);
    const { text } = JSON.parse(stdout);
    // As a draft for itself every token is taken: the drafted ones and one more.
    assert.ok(Math.abs(text.quality.overlap - 1) < 1e-6, String(text.quality.overlap));
    assert.equal(
      text.draft.lengths.map(({ tokensPerRun }: { tokensPerRun: number }) => Math.round(1e4 * tokensPerRun) / 1e4),
      [3, 5, 9],
    );
    assert.is(text.draft.speed, null);
    assert.is(text.quality.positions, TEXT.length - 1);
    assert.is(text.quality.kl, 0);
    assert.is(text.quality.top1, 1);
    assert.is(text.quality.perplexity, text.originalPerplexity);
    const random = await runCli('verify', TALES12, TALES12, '--quiet');
    assert.match(random.stdout, /random tokens only check the algebra/);
  }));

test('each limit that is not kept ends with exit code 1 and one line', () =>
  inWorkspace(async (folder) => {
    const [data, changed] = [join(folder, 'text.txt'), join(folder, 'changed.onnx')];
    writeFileSync(data, TEXT);
    const made = await runCli(TALES12, changed, '--remove-attention', '3-6', '--no-verify', '--quiet');
    assert.is(made.code, 0, made.stderr);
    const loose = ['--max-kl', '100', '--max-ppl-increase', '1', '--min-top1', '0', '--no-timing'];
    assert.is((await runCli('verify', TALES12, changed, '--data', data, ...loose, '--quiet')).code, 0);
    for (const [flag, tight, name] of [
      ['--max-kl', '0', 'KL'],
      ['--max-ppl-increase', '0', 'perplexity increase'],
      ['--min-top1', '1', 'top-1 agreement'],
    ] as const) {
      const refused = await runCli('verify', TALES12, changed, '--data', data, flag, tight, '--no-timing', '--quiet');
      assert.is(refused.code, 1, flag);
      assert.match(refused.stderr, new RegExp(`^onnx-fuse: OF_QUALITY quality on text: ${name} is [^\\n]*\\n$`));
    }
  }));

test('both decode as they prefill, and what they say next stands side by side', () =>
  inWorkspace(async (folder) => {
    const changed = join(folder, 'changed.onnx');
    const made = await runCli(TALES12, changed, '--remove-attention', '0-5', '--no-verify', '--quiet');
    assert.is(made.code, 0, made.stderr);
    const data = join(folder, 'text.txt');
    writeFileSync(data, TEXT);
    const words = ['verify', TALES12, changed, '--prompt', 'Once upon a', '--generate', '12', '--quiet'];
    const { code, stdout, stderr } = await runCli(...words, '--data', data, '--json');
    assert.is(code, 0, stderr);
    const { text, continuations } = JSON.parse(stdout);
    const { acceptance, lengths, speed } = text.draft;
    assert.ok(acceptance === text.quality.overlap && acceptance > 0.05 && acceptance < 1, String(acceptance));
    assert.match(
      speed.runtime,
      new RegExp(`^onnxruntime-node \\S+ on cpu, one sequence behind ${TEXT.length} tokens$`),
    );
    for (const { drafted, tokensPerRun, speedup } of lengths) {
      const expected = (1 - acceptance ** (drafted + 1)) / (1 - acceptance);
      assert.ok(Math.abs(tokensPerRun - expected) < 1e-9, `${tokensPerRun} is not ${expected}`);
      assert.ok(Math.abs(speedup - expected / (1 + drafted / speed.speedup)) < 1e-9, String(speedup));
    }
    // Half precision, 24 branches and 14 that are left of them.
    for (const [side, allowed] of [
      ['original', 4.8e-3],
      ['fused', 3.7e-3],
    ] as const) {
      const { agrees, relative, tolerance, tokens } = text.decode[side];
      assert.ok(agrees && relative > 0 && relative <= tolerance && tolerance === allowed, JSON.stringify(text.decode));
      assert.is(tokens, TEXT.length);
    }
    const [{ prompt, original, fused, differsAt, ids }] = continuations;
    assert.is(continuations.length, 1);
    assert.equal([prompt, original], ['Once upon a', ' time, there']);
    assert.is(fused, Buffer.from(ids.fused).toString());
    assert.is(ids.original.length, 12);
    assert.equal(ids.fused.slice(0, differsAt), ids.original.slice(0, differsAt));
    assert.is.not(ids.fused[differsAt], ids.original[differsAt]);

    const table = await runCli('verify', TALES12, changed, '--data', data, '--generate', '0', '--no-timing', '--quiet');
    assert.match(table.stdout, /overlap \d+\.\d\d %/);
    assert.match(table.stdout, /as a draft .*\d %.*\n {4}2 drafted {3}\d\.\d\d tokens for each run of the original\n/);
    const shown = await runCli(...words);
    assert.match(shown.stdout, /continuing "Once upon a"\n {2}original " time, there"\n {2}fused {4}"/);
    const nothing = await runCli('verify', TALES12, changed, '--generate', '5', '--quiet');
    assert.is(nothing.code, 2);
    assert.match(nothing.stderr, /OF_USAGE --generate: there is nothing to continue/);
  }));

test.run();
