/** Cases: hostile input ends in one coded line, within ten seconds and 500 MB, and reaches nothing outside. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { BIN, TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';
import { assertRefused, caseFile } from './cases.js';

const test = suite('cases: hostile input');
/** Ten seconds on a machine of its own. Tests share theirs, where computing takes longer, and waiting for it longer still. */
const LIMIT_SECONDS = 20;
const PATIENCE_MS = 240_000;
/** Ticks a second in /proc. */
const TICKS = 100;
const LIMIT_BYTES = 500 * 2 ** 20;
/** A model of a few bytes with which nothing is wrong. */
const SMALL = caseFile('hostile', 'mem', 'ok.onnx');

interface Ended {
  readonly code: number | null;
  readonly text: string;
  readonly peak: number;
  /** Of a processor, in this process and in those that it waited for. */
  readonly seconds: number;
}

/** Runs the command line as a process of its own, with an eye on its memory and its computing (where the system shows them). */
function watched(...argv: readonly string[]): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child: ChildProcess = spawn(process.execPath, [BIN, ...argv], { stdio: ['ignore', 'pipe', 'pipe'] });
    let [text, peak, seconds] = ['', 0, 0];
    for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', (part) => (text += part));
    const look = setInterval(() => {
      const status = `/proc/${child.pid}/status`;
      const line = existsSync(status) ? /VmHWM:\s+(\d+)/.exec(readFileSync(status, 'utf8')) : null;
      peak = Math.max(peak, Number(line?.[1] ?? 0) * 1024);
      // Behind the name in brackets: utime, stime, cutime and cstime are the 12th to the 15th field.
      const fields = line
        ? readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]?.split(' ').slice(11, 15)
        : [];
      seconds = Math.max(seconds, (fields ?? []).reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS);
      if (seconds > LIMIT_SECONDS) child.kill('SIGKILL');
    }, 50);
    const timer = globalThis.setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS);
    child.on('error', reject);
    child.on('close', (code) => {
      clearInterval(look);
      clearTimeout(timer);
      resolve({ code, text, peak, seconds });
    });
  });
}

/** It ended by itself, within bounds, and without a stack trace or an internal error. */
function assertBounded({ code, text, peak, seconds }: Ended): void {
  assert.ok(code !== null, `it was stopped after ${seconds} s of computing: ${text}`);
  assert.ok(code === 0 || code === 1 || code === 2, `exit code ${code}: ${text}`);
  assert.ok(peak < LIMIT_BYTES, `${peak} bytes`);
  assert.not(/\n\s+at |internal error|heap out of memory/i.test(text), text);
  if (code !== 0) assert.match(text, /^(warning.*\n)*onnx-fuse: OF_[A-Z_]+ .*\n$/);
}

/** Characters that a terminal obeys or that turn text around, but for line breaks and tabs of our own. */
function unseen(text: string): string[] {
  const isHidden = (code: number): boolean =>
    (code < 0x20 && code !== 0x0a && code !== 0x09) ||
    (code >= 0x7f && code <= 0x9f) ||
    (code >= 0x202a && code <= 0x202e) ||
    (code >= 0x2066 && code <= 0x2069);
  return [...text]
    .filter((character) => isHidden(character.codePointAt(0) as number))
    .map((each) => JSON.stringify(each));
}

for (const folder of ['crash', 'mem']) {
  for (const name of readdirSync(caseFile('hostile', folder)).filter((file) => file.endsWith('.onnx'))) {
    test(`${folder}/${name}: inspect and fuse end`, () =>
      inWorkspace(async (space) => {
        const input = caseFile('hostile', folder, name);
        assertBounded(await watched('inspect', input));
        // What can be fused is, so that the check comes as far as making its inputs.
        assertBounded(await watched(input, join(space, 'out.onnx'), '--keep-last', '0', '--quiet'));
        if (folder === 'crash') {
          assertBounded(await watched(input, join(space, 'out.onnx'), '--remove-attention', '1', '--quiet'));
        }
      }));
  }
}

for (const name of ['huge.npy', 'neg.npy', 'zero_cols.npy']) {
  test(`data/${name}: what reads it as tokens ends`, () =>
    inWorkspace(async (space) => {
      const data = ['--data', caseFile('hostile', 'data', name), '--quiet'];
      const recover = [TALES12, join(space, 'out.onnx'), '--remove-attention', '3', '--recover'];
      for (const argv of [['verify', TALES12, TALES12], recover, ['plan', TALES12, '--max-kl', '1']]) {
        const ended = await watched(...argv, ...data);
        assertBounded(ended);
        assert.match(ended.text, /OF_TOKEN_DATA/);
      }
    }));
}

for (const name of ['badregex_tokenizer.json', 'redos_tokenizer.json']) {
  test(`data/${name}: what reads text with it ends`, async () => {
    const data = caseFile('hostile', 'data', 'text.txt');
    const tokenizer = caseFile('hostile', 'data', name);
    const ended = await watched('verify', TALES12, TALES12, '--data', data, '--tokenizer', tokenizer, '--quiet');
    assertBounded(ended);
    assert.match(ended.text, /OF_TOKENIZER/);
  });
}

test('data/redos_tokenizer.json: Ctrl-C ends it while it computes', async () => {
  const [data, tokenizer] = ['text.txt', 'redos_tokenizer.json'].map((name) => caseFile('hostile', 'data', name));
  const argv = ['verify', TALES12, TALES12, '--data', data as string, '--tokenizer', tokenizer as string];
  const child = spawn(process.execPath, [BIN, ...argv], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.on('close', (code, signal) => resolve(signal ?? code)));
  await setTimeout(2500);
  const asked = performance.now();
  child.kill('SIGINT');
  // Not that it gave up by itself, which is 2. The signal itself where it had not begun.
  assert.ok([130, 'SIGINT'].includes((await ended) as number));
  assert.ok(performance.now() - asked < 10_000, `it went on for ${performance.now() - asked} ms`);
});

for (const name of ['esc.onnx', 'err.onnx']) {
  test(`esc/${name}: escape sequences and line breaks in names are seen, not obeyed`, () =>
    inWorkspace(async (space) => {
      const input = caseFile('hostile', 'esc', name);
      for (const argv of [
        ['inspect', input],
        ['print', input],
        ['verify', input, input],
        ['golden', input, join(space, 'none.golden')],
        [input, join(space, 'out.onnx'), '--keep-last', '0'],
        [input, join(space, 'out.onnx'), '--runs', '0-1'],
        ['shard', input, join(space, 'ranks'), '--tp', '2'],
      ]) {
        const { stdout, stderr } = await runCli(...argv);
        assert.match(stdout + stderr, /./);
        assert.equal(unseen(stdout + stderr), [], `${argv.join(' ')}`);
      }
    }));
}

test('genai_config.json with names of models outside of its folder: nothing is read or written there', () =>
  inWorkspace(async (space) => {
    const input = join(space, 'a', 'b', 'in');
    cpSync(caseFile('int4', 'genai-llama-int4-webgpu'), input, { recursive: true });
    const text = readFileSync(join(input, 'genai_config.json'), 'utf8');
    type Named = Record<string, { filename?: string; pipeline?: unknown }>;
    const inPlaces: ((model: Named, filename: string) => void)[] = [
      (model, filename) => Object.assign(model['decoder'] as object, { filename }),
      (model, filename) => Object.assign(model['decoder'] as object, { pipeline: [{ stage: { filename } }] }),
      (model, filename) => Object.assign(model, { vision: { filename } }),
    ];
    for (const filename of ['../../x/y', '../in/model.onnx', '..\\..\\x\\y', join(input, 'model.onnx')]) {
      for (const put of inPlaces) {
        const config = JSON.parse(text) as { model: Named };
        put(config.model, filename);
        writeFileSync(join(input, 'genai_config.json'), JSON.stringify(config));
        const before = readdirSync(space, { recursive: true }).sort();
        const output = join(space, 'a', 'b', 'out');
        assertRefused(await runCli(input, output, '--remove-attention', '1', '--quiet'), /OF_LEAVES_FOLDER/);
        assertRefused(await runCli('inspect', input), /OF_LEAVES_FOLDER/);
        assert.equal(readdirSync(space, { recursive: true }).sort(), before);
      }
    }
  }));

test('output or report on a pipe or a device: models are refused, reports are written through', () =>
  inWorkspace(async (space) => {
    const [model, pipe, device] = ['out.onnx', 'pipe', 'device'].map((name) => join(space, name)) as [
      string,
      ...string[],
    ];
    const made = (command: string, ...argv: string[]): boolean => spawnSync(command, argv).status === 0;
    // The kernel's own null device, under a name of ours; only root may make it.
    const specials = [
      ...(made('mkfifo', pipe as string) ? [pipe as string] : []),
      ...(made('mknod', device as string, 'c', '1', '3') ? [device as string] : []),
    ];
    for (const special of specials) {
      const { mode } = statSync(special);
      assertRefused(await runCli(SMALL, special, '--keep-last', '0', '--quiet'), /OF_NOT_A_FILE/, 2);
      const reader = special === pipe ? spawn('cat', [special]) : null;
      let read = '';
      reader?.stdout.on('data', (part) => (read += part));
      const ended = reader && new Promise((resolve) => reader.on('close', resolve));
      const { code, stderr } = await runCli(SMALL, model, '--keep-last', '0', '--quiet', '--report', special);
      assert.is(code, 0, stderr);
      await ended;
      if (reader) assert.is(JSON.parse(read).nodes.before > 0, true);
      assert.is(statSync(special).mode, mode, special);
    }
    assert.ok(specials.length > 0 || process.platform === 'win32');
  }));

test('X.new beside a report: a file or a link of the user stays', () =>
  inWorkspace(async (space) => {
    const [report, mine] = [join(space, 'report.json'), join(space, 'mine')];
    writeFileSync(mine, 'mine');
    for (const make of [() => writeFileSync(`${report}.new`, 'mine'), () => symlinkSync(mine, `${report}.new`)]) {
      rmSync(`${report}.new`, { force: true });
      make();
      const { code, stderr } = await runCli(
        ...[SMALL, join(space, 'out.onnx'), '--keep-last', '0', '--quiet', '--report', report],
      );
      assert.is(code, 0, stderr);
      assert.ok(JSON.parse(readFileSync(report, 'utf8')).facts);
      assert.equal(
        [`${report}.new`, mine].map((file) => readFileSync(file, 'utf8')),
        ['mine', 'mine'],
      );
    }
    assert.equal(readdirSync(space).sort(), ['mine', 'out.onnx', 'report.json', 'report.json.new']);
  }));

test('a folder whose notes.txt is a link to ../secret.txt: it is not followed, and named', () =>
  inWorkspace(async (space) => {
    const input = join(space, 'in');
    cpSync(caseFile('int4', 'genai-llama-int4-webgpu'), input, { recursive: true });
    writeFileSync(join(space, 'secret.txt'), 'the secret');
    symlinkSync(join('..', 'secret.txt'), join(input, 'notes.txt'));
    const output = join(space, 'out');
    const { code, stdout, stderr } = await runCli(input, output, '--remove-attention', '1');
    assert.is(code, 0, stderr);
    assert.not(existsSync(join(output, 'notes.txt')));
    assert.match(stdout, /not copied: notes\.txt \(a link that leads out of the folder\)/);
    // The files that are copied are named, too.
    assert.match(stdout, /copied genai_config\.json, tokenizer\.json, tokenizer_config\.json/);
  }));

test('a planted folder of a dead run: nothing is moved outside', () =>
  inWorkspace(async (space) => {
    for (const [i, list] of ['../stolen\n', '["../stolen","out.onnx"]', '["out.onnx","../stolen"]'].entries()) {
      const target = join(space, `target${i}`);
      const planted = join(target, '.out.onnx.onnx-fuse-commit');
      mkdirSync(planted, { recursive: true });
      writeFileSync(join(planted, '.onnx-fuse-owner-2147483646'), list);
      for (const name of ['stolen', 'out.onnx']) writeFileSync(join(planted, name), 'planted');
      assertRefused(await runCli(SMALL, join(target, 'out.onnx'), '--pipeline', '', '--quiet'), /OF_LEFTOVER/);
      assert.not(existsSync(join(space, 'stolen')));
      assert.equal(readdirSync(target), ['.out.onnx.onnx-fuse-commit']);
    }
  }));

test.run();
