/** The script of the GPU kit, as far as a machine without a network can try it: it starts when all pieces are there and whole. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { ROOT } from '../../helpers/paths.js';
import { skip, suite } from '../../helpers/suite.js';

const test = suite('gpu kit');

/** A kit whose Node only says what it was asked. */
function smallKit(folder: string): string {
  const stage = join(folder, 'stage');
  mkdirSync(join(stage, 'bin'), { recursive: true });
  writeFileSync(join(stage, 'bin', 'node'), '#!/bin/sh\necho "asked: $*"\n', { mode: 0o755 });
  spawnSync('tar', ['-czf', join(folder, 'kit.tar.gz'), '-C', stage, '.']);
  const kit = join(folder, 'kit');
  mkdirSync(kit);
  copyFileSync(join(ROOT, 'test/bench/gpu-kit/run.sh'), join(kit, 'run.sh'));
  const archive = readFileSync(join(folder, 'kit.tar.gz'));
  const pieces = [archive.subarray(0, 100), archive.subarray(100)];
  const lines = pieces.map((piece, i) => {
    writeFileSync(join(kit, `kit.0${i}`), piece);
    return `${createHash('sha256').update(piece).digest('hex')}  kit.0${i}`;
  });
  writeFileSync(join(kit, 'pieces.sha256'), `${lines.join('\n')}\n`);
  return kit;
}

test('it starts when all pieces are there and whole', () => {
  if (process.platform !== 'linux') skip('the kit is for Linux');
  const folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-kit-test-'));
  const run = (kit: string) =>
    spawnSync('bash', [join(kit, 'run.sh'), join(folder, 'results'), '--quick'], { encoding: 'utf8' });
  try {
    const kit = smallKit(folder);
    const second = readFileSync(join(kit, 'kit.01'));
    rmSync(join(kit, 'kit.01'));
    const early = run(kit);
    assert.is(early.status, 3);
    assert.match(early.stderr, /These pieces are not here yet: kit\.01\./);

    writeFileSync(
      join(kit, 'kit.01'),
      second.map((byte) => byte ^ 1),
    );
    const damaged = run(kit);
    assert.is(damaged.status, 1);
    assert.match(`${damaged.stdout}${damaged.stderr}`, /kit\.01: FAILED/);

    writeFileSync(join(kit, 'kit.01'), second);
    const { status, stdout, stderr } = run(kit);
    assert.is(status, 0, stderr);
    assert.match(stdout, /^asked: .*gpu-kit\/measure\.js --out .*\/results --quick\n$/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test.run();
