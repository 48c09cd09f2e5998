/**
 * What goes wrong around a run: it is killed, interrupted, out of space, its input changes, another run has the same
 * output. The output is the old one, untouched, or the new one, whole; one line says what happened; nothing is left.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { openModel, saveModel, stageModel, temporaryFor } from '../../ir/index.js';
import { writeDecoder } from '../bench/make-decoder.js';
import { BIN } from '../helpers/paths.js';
import { skip, suite } from '../helpers/suite.js';
import { inWorkspace } from '../helpers/workspace.js';

const faults = suite('faults');
/** What a run may leave when it has no chance to clean up; the next run with the same output removes it. */
const LEFTOVER = /^\.out(?:\.onnx)?\.onnx-fuse-(\d+-[0-9a-f]{12}|commit)$/;
/** A process id beyond every system's limit is dead. */
const DEAD = 2_000_000_000;
/** Removes three attentions and fuses two FFNs. The check is another matter, and slow. */
const FUSE = ['--remove-attention', '2-4', '--no-verify', '--quiet'];
const OTHER = ['--remove-attention', '2-6', '--no-verify', '--quiet'];

/** 70 MB: long enough in the making to be hit in it. */
function makeInput(folder: string): string {
  const path = join(folder, 'in.onnx');
  writeDecoder(path, {
    form: 'skip',
    dtype: 'float',
    hidden: 256,
    heads: 8,
    kvHeads: 4,
    headSize: 32,
    vocabulary: 1024,
    layers: Array.from({ length: 8 }, () => ({ attention: true, width: 2560 })),
  });
  return path;
}

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The command line in a process of its own; `prefix` is what starts it. */
function start(argv: readonly string[], prefix: readonly string[] = []): { child: ChildProcess; end: Promise<Ended> } {
  const [command, ...args] = [...prefix, process.execPath, BIN, ...argv] as [string, ...string[]];
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const text = { stdout: '', stderr: '' };
  child.stdout?.on('data', (chunk) => (text.stdout += chunk));
  child.stderr?.on('data', (chunk) => (text.stderr += chunk));
  const end = new Promise<Ended>((resolve) => {
    child.on('close', (code, signal) => resolve({ code, signal, ...text }));
  });
  return { child, end };
}

/** Waits until the run that was started in `folder` is writing, and stops it there for a while. */
async function whileWriting(child: ChildProcess, folder: string, work: () => void): Promise<void> {
  const isWriting = (): boolean =>
    readdirSync(folder).some((name) => {
      const data = join(folder, name, 'out.onnx.data');
      return LEFTOVER.test(name) && existsSync(data) && statSync(data).size > 0;
    });
  while (child.exitCode === null && !isWriting()) await sleep(1);
  child.kill('SIGSTOP');
  assert.ok(child.exitCode === null && isWriting(), 'the run was over before it could be disturbed');
  work();
  child.kill('SIGCONT');
}

const hash = (path: string): string =>
  existsSync(path) ? createHash('sha256').update(readFileSync(path)).digest('hex') : 'absent';

/** Header and data as one word. */
const outputOf = (folder: string): string => `${hash(join(folder, 'out.onnx'))} ${hash(join(folder, 'out.onnx.data'))}`;

function oneLine({ stdout, stderr }: Ended, begins: RegExp): void {
  assert.is(stdout, '');
  assert.is(stderr.trimEnd().split('\n').length, 1, stderr);
  assert.match(stderr, begins);
  assert.not(/^\s+at /m.test(stderr), 'a stack trace is no message');
}

/** Runs, is disturbed, fails with this line and leaves `out.onnx` as it was. */
async function failsWhile(work: (input: string) => void, code: number, begins: RegExp): Promise<void> {
  await inWorkspace(async (folder) => {
    const input = makeInput(folder);
    const output = join(folder, 'out.onnx');
    writeFileSync(output, 'the old header');
    writeFileSync(`${output}.data`, 'the old data');
    const before = outputOf(folder);
    const { child, end } = start([input, output, ...FUSE]);
    await whileWriting(child, folder, () =>
      code > 128 ? child.kill(code === 130 ? 'SIGINT' : 'SIGTERM') : work(input),
    );
    const ended = await end;
    assert.is(ended.code, code, ended.stderr);
    oneLine(ended, begins);
    assert.is(outputOf(folder), before, 'the old output is as it was');
    assert.equal(
      readdirSync(folder).filter((name) => name.startsWith('.')),
      [],
      'no temporary files are left',
    );
  });
}

faults('an interrupted run ends with 130, one line, and nothing left of it', async () => {
  await failsWhile(() => {}, 130, /^onnx-fuse: interrupted; the output is as it was before$/m);
  await failsWhile(() => {}, 143, /^onnx-fuse: interrupted; the output is as it was before$/m);
});

faults('an input that becomes shorter underfoot is an error', () =>
  failsWhile((input) => truncateSync(`${input}.data`, 1_000_000), 1, /^onnx-fuse: OF_CHANGED .*in\.onnx\.data/),
);

faults('an input that is written to underfoot is an error', () =>
  failsWhile((input) => utimesSync(`${input}.data`, 1, 1), 1, /^onnx-fuse: OF_CHANGED .*in\.onnx\.data/),
);

faults('an input that is replaced underfoot is an error', () =>
  failsWhile(
    (input) => {
      rmSync(`${input}.data`);
      mkdirSync(`${input}.data`);
    },
    1,
    /^onnx-fuse: OF_READ .*in\.onnx\.data.*folder/,
  ),
);

faults('data that cannot be read are an error before anything is written', () =>
  inWorkspace(async (folder) => {
    const input = makeInput(folder);
    const output = join(folder, 'out.onnx');
    rmSync(`${input}.data`);
    mkdirSync(`${input}.data`);
    const isFolder = await start([input, output, ...FUSE]).end;
    assert.is(isFolder.code, 1);
    oneLine(isFolder, /^onnx-fuse: OF_READ .*it is a folder/);
    assert.equal(readdirSync(folder), ['in.onnx', 'in.onnx.data']);
  }),
);

faults('data that may not be read are an error before anything is written', () =>
  inWorkspace(async (folder) => {
    if (process.getuid?.() === 0) skip('root may read every file');
    const input = makeInput(folder);
    chmodSync(`${input}.data`, 0o000);
    const isForbidden = await start([input, join(folder, 'out.onnx'), ...FUSE]).end;
    assert.is(isForbidden.code, 1);
    oneLine(isForbidden, /^onnx-fuse: OF_READ .*EACCES/);
    assert.equal(readdirSync(folder), ['in.onnx', 'in.onnx.data']);
  }),
);

faults('killed at any moment, a run leaves the old output or the new one, and the next run cleans up', () =>
  inWorkspace(async (folder) => {
    const input = makeInput(folder);
    const output = join(folder, 'out.onnx');
    const clean = async (argv: readonly string[]): Promise<string> => {
      assert.is((await start([input, output, ...argv]).end).code, 0);
      assert.equal(readdirSync(folder).sort(), ['in.onnx', 'in.onnx.data', 'out.onnx', 'out.onnx.data']);
      return outputOf(folder);
    };
    const began = performance.now();
    const fresh = await clean(FUSE);
    const duration = performance.now() - began;
    const old = await clean(OTHER);
    assert.is.not(old, fresh);
    let hits = 0;
    const TIMES = 12;
    for (let i = 0; i < TIMES; i++) {
      const { child, end } = start([input, output, ...FUSE]);
      // Some at any moment; some surely while it writes, which may be over in a few milliseconds.
      if (i % 3 > 0) await sleep((duration * (i + Math.random())) / TIMES);
      else await whileWriting(child, folder, () => child.kill('SIGKILL'));
      child.kill('SIGKILL');
      const { code } = await end;
      const left = readdirSync(folder).filter((name) => !/^(in|out)\.onnx(\.data)?$/.test(name));
      if (left.length > 0) hits++;
      assert.ok(left.length <= 1 && left.every((name) => LEFTOVER.test(name)), left.join());
      // Within the renames there may be no header: then everything is there for the next run to go on.
      if (left[0]?.endsWith('-commit')) temporaryFor(output);
      const found = outputOf(folder);
      assert.ok(
        found === (code === 0 ? fresh : old) || found === fresh,
        `killed (${i}): neither the old nor the new one`,
      );
      assert.is(await clean(OTHER), old);
    }
    assert.ok(hits >= TIMES / 3, `${hits} runs were hit while they were writing`);
  }),
);

faults('killed between the renames, a run has left all that the output needs, and the next one puts it there', () =>
  inWorkspace(async (folder) => {
    const input = makeInput(folder);
    const output = join(folder, 'out.onnx');
    await saveModel(openModel(input), output);
    const whole = outputOf(folder);
    const commit = join(folder, '.out.onnx.onnx-fuse-commit');
    // Every state that a process can die in: what has been moved so far.
    const moves = [
      ['out.onnx', 'out.onnx.old', 'aside'],
      ['out.onnx.data', 'out.onnx.data.old', 'aside'],
      ['out.onnx.data', 'out.onnx.data', 'in'],
      ['out.onnx', 'out.onnx', 'in'],
    ] as const;
    for (let died = 0; died <= moves.length; died++) {
      const staged = await stageModel(openModel(input), output);
      writeFileSync(output, 'the old header');
      writeFileSync(`${output}.data`, 'the old data');
      renameSync(join(staged.headerPath, '..'), commit);
      writeFileSync(join(commit, `.onnx-fuse-owner-${DEAD}`), JSON.stringify(['out.onnx.data', 'out.onnx']));
      for (const [from, to, how] of moves.slice(0, died)) {
        if (how === 'aside') renameSync(join(folder, from), join(commit, to));
        else renameSync(join(commit, from), join(folder, to));
      }
      // What every run begins with.
      temporaryFor(output);
      assert.is(outputOf(folder), whole, `died after ${died} renames`);
      assert.equal(readdirSync(folder).sort(), ['in.onnx', 'in.onnx.data', 'out.onnx', 'out.onnx.data']);
    }
  }),
);

faults('runs with one output at the same time all finish, and the output is that of one of them', () =>
  inWorkspace(async (folder) => {
    const input = makeInput(folder);
    const output = join(folder, 'out.onnx');
    const alone: string[] = [];
    for (const argv of [FUSE, OTHER]) {
      assert.is((await start([input, output, ...argv]).end).code, 0);
      alone.push(outputOf(folder));
    }
    for (let i = 0; i < 3; i++) {
      const ends = [FUSE, OTHER, FUSE].map((argv) => start([input, output, ...argv]).end);
      for (const { code, stderr } of await Promise.all(ends)) assert.is(code, 0, stderr);
      assert.ok(alone.includes(outputOf(folder)), 'header and data of different runs');
      assert.equal(readdirSync(folder).sort(), ['in.onnx', 'in.onnx.data', 'out.onnx', 'out.onnx.data']);
    }
    // The same within one process, where commits meet for sure.
    const made = await Promise.all([true, true, true, true].map(() => stageModel(openModel(input), output)));
    await Promise.all(made.map((staged) => staged.commit()));
    assert.is(hash(`${output}.data`), hash(`${input}.data`));
  }),
);

faults('a file that cannot grow is one line, and nothing is left', () =>
  inWorkspace(async (folder) => {
    const input = makeInput(folder);
    const small = join(folder, 'small');
    mkdirSync(small);
    const argv = [input, join(small, 'out.onnx'), ...FUSE];
    const limited = await start(argv, ['sh', '-c', 'ulimit -f 20000; exec "$@"', 'sh']).end;
    assert.is(limited.code, 1);
    oneLine(limited, /^onnx-fuse: OF_WRITE .*EFBIG/);
    assert.equal(readdirSync(small), []);
  }),
);

/** What starts a command with a file system of its own in `folder`, mounted with these options. Skips the test where nobody may mount. */
function mounted(folder: string, options: string, command: string): string[] {
  const mount = `mount -t tmpfs -o ${options} tmpfs "${folder}"`;
  const isPossible = process.platform === 'linux' && spawnSync('unshare', ['-m', 'sh', '-c', mount]).status === 0;
  if (!isPossible) skip('no file system can be mounted here');
  return ['unshare', '-m', 'sh', '-c', `${mount} && ${command}`, 'sh'];
}

faults('a full disk is one line, and nothing is left', () =>
  inWorkspace(async (folder) => {
    const small = join(folder, 'small');
    mkdirSync(small);
    // What is left in the folder goes to the lines that are expected to be one.
    const disk = mounted(small, 'size=20m', `{ "$@"; code=$?; ls -A "${small}" >&2; exit $code; }`);
    const full = await start([makeInput(folder), join(small, 'out.onnx'), ...FUSE], disk).end;
    assert.is(full.code, 1);
    oneLine(full, /^onnx-fuse: OF_WRITE .*ENOSPC/);
  }),
);

faults('a folder that cannot be written to is one line', () =>
  inWorkspace(async (folder) => {
    const closed = join(folder, 'closed');
    mkdirSync(closed);
    // Root may write into every folder, but not to a disk that is mounted read-only.
    const isRoot = process.getuid?.() === 0;
    const disk = isRoot ? mounted(closed, 'ro', 'exec "$@"') : [];
    if (!isRoot) chmodSync(closed, 0o555);
    const [input, out] = [makeInput(folder), join(folder, 'out.onnx')];
    for (const words of [
      [input, join(closed, 'out.onnx'), ...FUSE],
      // Also what is written last is looked at before the work, and an error that cannot be written as JSON is said.
      [input, out, ...FUSE, '--report', join(closed, 'r.json')],
      [input, out, ...FUSE, '--json', join(closed, 'f.json')],
      ['inspect', input, '--json', join(closed, 'i.json')],
    ]) {
      const ended = await start(words, disk).end;
      assert.is(ended.code, 1);
      oneLine(ended, /^onnx-fuse: OF_WRITE .*(EROFS|EACCES)/);
      assert.not(existsSync(out));
    }
    chmodSync(closed, 0o755);
    assert.equal(readdirSync(closed), []);
  }),
);

faults('a folder as output is replaced as a whole, also after a run that died in the middle of it', () =>
  inWorkspace(async (folder) => {
    const input = join(folder, 'model');
    mkdirSync(input);
    renameSync(makeInput(folder), join(input, 'in.onnx'));
    renameSync(join(folder, 'in.onnx.data'), join(input, 'in.onnx.data'));
    const output = join(folder, 'out');
    const run = async (argv: readonly string[]): Promise<string[]> => {
      const ended = await start([input, output, ...argv]).end;
      assert.is(ended.code, 0, ended.stderr);
      assert.equal(readdirSync(folder).sort(), ['model', 'out']);
      return readdirSync(output).map((name) => `${name} ${hash(join(output, name))}`);
    };
    const fresh = await run(FUSE);
    const whole = join(folder, 'whole');
    cpSync(output, whole, { recursive: true });
    const commit = join(folder, '.out.onnx-fuse-commit');
    mkdirSync(commit);
    writeFileSync(join(commit, `.onnx-fuse-owner-${DEAD}`), JSON.stringify([basename(output)]));
    renameSync(whole, join(commit, 'out'));
    rmSync(output, { recursive: true });
    temporaryFor(output);
    assert.equal(
      readdirSync(output).map((name) => `${name} ${hash(join(output, name))}`),
      fresh,
    );
    const { child, end } = start([input, output, ...OTHER]);
    while (child.exitCode === null && !readdirSync(folder).some((name) => LEFTOVER.test(name))) await sleep(1);
    child.kill('SIGINT');
    assert.is((await end).code, 130);
    assert.equal(readdirSync(folder).sort(), ['model', 'out']);
    assert.equal(
      readdirSync(output).map((name) => `${name} ${hash(join(output, name))}`),
      fresh,
    );
  }),
);

faults.run();
