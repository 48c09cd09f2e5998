/** One convention for JSON: every command gives its result, or why there is none, with kind, version and status. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { saveModel } from '../../ir/index.js';
import { goldenInput } from '../helpers/golden-check.js';
import { suite } from '../helpers/suite.js';
import { inWorkspace, runCli } from '../helpers/workspace.js';

const test = suite('json');

interface Head {
  readonly kind: string;
  readonly version: number;
  readonly status: string;
  readonly code?: string;
  readonly message?: string;
  readonly remedy?: string;
  readonly command?: string;
}

test('every command gives its result as JSON, alone on standard output', () =>
  inWorkspace(async (folder) => {
    const path = (name: string): string => join(folder, name);
    await saveModel(goldenInput('pipeline/adds'), path('in.onnx'));
    for (const [kind, words] of [
      ['fusion', [path('in.onnx'), path('out.onnx'), '--remove-attention', '1-2']],
      ['inspection', ['inspect', path('in.onnx')]],
      ['text', ['print', path('in.onnx')]],
      ['verification', ['verify', path('in.onnx'), path('out.onnx')]],
      ['comparison', ['golden', path('in.onnx'), path('in.golden'), '--accept']],
      ['packing', ['pack', path('in.onnx'), path('whole.onnx')]],
      ['passes', ['passes']],
      ['environment', ['env']],
      ['ranks', ['shard', path('in.onnx'), path('ranks'), '--tp', '2']],
      ['benchmark', ['bench', path('in.onnx'), '--prompt', '4', '--decode', '2', '--rounds', '1']],
    ] as const) {
      const { code, stdout, stderr } = await runCli(...words, '--json');
      assert.is(code, 0, stderr);
      const { kind: found, version, status } = JSON.parse(stdout) as Head;
      assert.equal([found, version, status], [`onnx-fuse ${kind}`, 1, 'done']);
      const file = path(`${kind}.json`);
      const again = kind === 'fusion' ? [path('in.onnx'), path('again.onnx'), ...words.slice(2)] : words;
      const target = kind === 'ranks' ? [...again.slice(0, 2), path('ranks2'), ...again.slice(3)] : again;
      const beside = await runCli(...target, '--json', file);
      assert.is(beside.code, 0, beside.stderr);
      assert.is((JSON.parse(readFileSync(file, 'utf8')) as Head).kind, `onnx-fuse ${kind}`);
      assert.throws(() => JSON.parse(beside.stdout), undefined, 'people are told, too');
    }
  }));

test('-q leaves nothing on standard error, and is --quiet', () =>
  inWorkspace(async (folder) => {
    const path = (name: string): string => join(folder, name);
    await saveModel(goldenInput('pipeline/adds'), path('in.onnx'));
    for (const words of [
      [path('in.onnx'), path('out.onnx'), '--remove-attention', '1-2'],
      ['inspect', path('in.onnx')],
      ['print', path('in.onnx')],
      ['verify', path('in.onnx'), path('out.onnx')],
      ['golden', path('in.onnx'), path('in.golden'), '--accept'],
      ['pack', path('in.onnx'), path('whole.onnx')],
      ['passes'],
    ]) {
      const [short, long] = [await runCli(...words, '-q'), await runCli(...words, '--quiet')];
      assert.equal([short.code, short.stderr, long.code, long.stderr], [0, '', 0, ''], words[0]);
    }
    const missing = await runCli('inspect', path('none.onnx'), '-q');
    assert.match(missing.stderr, /^onnx-fuse: OF_NO_SUCH_FILE /);
  }));

test('what failed is said in JSON with the code, besides the line on standard error', () =>
  inWorkspace(async (folder) => {
    const path = (name: string): string => join(folder, name);
    const missing = await runCli('inspect', path('none.onnx'), '--json');
    const { kind, status, command, code, remedy } = JSON.parse(missing.stdout) as Head;
    assert.equal(
      [missing.code, kind, status, command, code],
      [2, 'onnx-fuse failure', 'failed', 'inspect', 'OF_NO_SUCH_FILE'],
    );
    assert.ok(remedy);
    assert.match(missing.stderr, /^onnx-fuse: OF_NO_SUCH_FILE .*\n$/);
    // Weights beside a model are never called so.
    const elsewhere = await runCli('passes', `--json=${path('weights.data')}`);
    assert.is(elsewhere.code, 2);
    assert.match(elsewhere.stderr, /OF_USAGE --json: .*does not end in \.json/);
    assert.not(existsSync(path('weights.data')));
    // A result that does not keep a limit is given, with what is wrong with it, once.
    await saveModel(goldenInput('pipeline/adds'), path('in.onnx'));
    await runCli(path('in.onnx'), path('out.onnx'), '--remove-attention', '1-2', '--quiet');
    const over = await runCli('verify', path('in.onnx'), path('out.onnx'), '--tolerance', '1e-9', '--json');
    const found = JSON.parse(over.stdout) as Head & { worst: { relative: number } };
    assert.equal(
      [over.code, found.kind, found.status, found.code],
      [1, 'onnx-fuse verification', 'failed', 'OF_TOLERANCE'],
    );
    assert.ok(found.worst.relative > 1e-9);
    writeFileSync(path('in.golden'), 'something else\n');
    const differs = await runCli('golden', path('in.onnx'), path('in.golden'), '--json', path('diff.json'));
    assert.is(differs.code, 1);
    assert.equal((JSON.parse(readFileSync(path('diff.json'), 'utf8')) as Head).code, 'OF_GOLDEN');
    assert.match(differs.stderr, /OF_GOLDEN/);
    assert.not(existsSync(path('none.json')));
  }));

test.run();
