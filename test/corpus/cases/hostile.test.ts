/** Cases: hostile input ends in one coded line, within ten seconds and 500 MB. */
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { BIN, TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';
import { caseFile } from './cases.js';

const test = suite('cases: hostile input');
/** Ten seconds on a machine of its own. Tests share theirs, where computing takes longer, and waiting for it longer still. */
const LIMIT_SECONDS = 20;
const PATIENCE_MS = 240_000;
/** Ticks a second in /proc. */
const TICKS = 100;
const LIMIT_BYTES = 500 * 2 ** 20;

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
    const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS);
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
  if (code !== 0) assert.match(text, /OF_[A-Z_]+/);
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
    test(`inspect and fuse end: ${folder}/${name}`, () =>
      inWorkspace(async (space) => {
        const input = caseFile('hostile', folder, name);
        assertBounded(await watched('inspect', input));
        assertBounded(await watched(input, join(space, 'out.onnx'), '--remove-attention', '1', '--quiet'));
      }));
  }
}

for (const name of ['huge.npy', 'neg.npy', 'zero_cols.npy']) {
  test(`verify --data ends: ${name}`, async () => {
    const ended = await watched('verify', TALES12, TALES12, '--data', caseFile('hostile', 'data', name), '--quiet');
    assertBounded(ended);
    assert.ok(ended.code !== 0);
  });
}

for (const name of ['badregex_tokenizer.json', 'redos_tokenizer.json']) {
  test(`verify --tokenizer ends: ${name}`, async () => {
    const data = caseFile('hostile', 'data', 'text.txt');
    const tokenizer = caseFile('hostile', 'data', name);
    assertBounded(await watched('verify', TALES12, TALES12, '--data', data, '--tokenizer', tokenizer, '--quiet'));
  });
}

test('escape sequences and line breaks in names are seen, not obeyed', async () => {
  for (const name of ['esc.onnx', 'err.onnx']) {
    const input = caseFile('hostile', 'esc', name);
    for (const command of ['inspect', 'print', 'verify']) {
      const argv = command === 'verify' ? [command, input, input] : [command, input];
      const { stdout, stderr } = await runCli(...argv);
      assert.equal(unseen(stdout + stderr), [], `${command} ${name}`);
    }
  }
});

test('a config does not name a model outside of its folder', () =>
  inWorkspace(async (space) => {
    const input = join(space, 'in');
    cpSync(caseFile('int4', 'genai-llama-int4-webgpu'), input, { recursive: true });
    const config = JSON.parse(readFileSync(join(input, 'genai_config.json'), 'utf8'));
    for (const filename of ['../in/model.onnx', join(input, 'model.onnx')]) {
      config.model.decoder.filename = filename;
      writeFileSync(join(input, 'genai_config.json'), JSON.stringify(config));
      const output = join(space, 'out');
      const { code, stderr } = await runCli(input, output, '--remove-attention', '1', '--quiet');
      assert.not(code === 0);
      assert.match(stderr, /OF_[A-Z_]+/);
      assert.not(existsSync(output));
    }
  }));

test('links that leave a folder are not followed', () =>
  inWorkspace(async (space) => {
    const input = join(space, 'in');
    cpSync(caseFile('int4', 'genai-llama-int4-webgpu'), input, { recursive: true });
    writeFileSync(join(space, 'secret.txt'), 'the secret');
    symlinkSync(join('..', 'secret.txt'), join(input, 'notes.txt'));
    const output = join(space, 'out');
    const { code, stdout, stderr } = await runCli(input, output, '--remove-attention', '1');
    if (code === 0) {
      assert.not(existsSync(join(output, 'notes.txt')));
      assert.match(stdout + stderr, /notes\.txt/);
    } else assert.match(stderr, /OF_[A-Z_]+/);
  }));

test('a planted folder of a dead run moves nothing outside', () =>
  inWorkspace(async (space) => {
    const target = join(space, 'target');
    mkdirSync(join(target, '.out.onnx.onnx-fuse-commit'), { recursive: true });
    const planted = join(target, '.out.onnx.onnx-fuse-commit');
    writeFileSync(join(planted, '.onnx-fuse-owner-2147483646'), '../stolen\n');
    writeFileSync(join(planted, 'stolen'), 'x');
    await runCli(TALES12, join(target, 'out.onnx'), '--pipeline', '', '--quiet');
    assert.not(existsSync(join(space, 'stolen')));
  }));

test.run();
