/** Outputs that are no files, and names beside them that are somebody else's: nothing is destroyed, links are not followed. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { BIN } from '../helpers/paths.js';
import { writeSmallDecoder } from '../helpers/small-decoder.js';
import { skip, suite } from '../helpers/suite.js';
import { inWorkspace, runCli } from '../helpers/workspace.js';

const test = suite('outputs');
const FUSE = ['--remove-attention', '1-3', '--no-verify', '--quiet'];

/** A pipe of the test's own. */
function pipeIn(folder: string, name: string): string {
  const path = join(folder, name);
  if (spawnSync('mkfifo', [path]).status !== 0) skip('mkfifo makes no pipes here');
  return path;
}

const isPipe = (path: string): boolean => lstatSync(path).isFIFO();

/** What a process that reads a pipe has got when the other side is closed. */
function readerOf(path: string): { child: ChildProcess; text: Promise<string> } {
  const child = spawn('cat', [path], { stdio: ['ignore', 'pipe', 'ignore'] });
  const parts: Buffer[] = [];
  child.stdout?.on('data', (part: Buffer) => parts.push(part));
  const text = new Promise<string>((resolve) => child.on('close', () => resolve(Buffer.concat(parts).toString())));
  return { child, text };
}

test('a model is not written over a pipe, nor are its data', () =>
  inWorkspace(async (folder) => {
    const input = writeSmallDecoder(folder);
    const [pipe, link] = [pipeIn(folder, 'pipe.onnx'), join(folder, 'link.onnx')];
    symlinkSync(pipe, link);
    const data = pipeIn(folder, 'out.onnx.data');
    for (const output of [pipe, link, join(folder, 'out.onnx')]) {
      const { code, stderr } = await runCli(input, output, ...FUSE);
      assert.is(code, 2, stderr);
      assert.match(stderr, /^onnx-fuse: OF_NOT_A_FILE .*the output is a pipe.*\n$/);
    }
    assert.ok(isPipe(pipe) && isPipe(data) && lstatSync(link).isSymbolicLink());
    assert.equal(readdirSync(folder).sort(), [
      'link.onnx',
      'out.onnx.data',
      'pipe.onnx',
      'small.onnx',
      'small.onnx.data',
    ]);
  }));

test('a model is not written to a file that is open already', () =>
  inWorkspace(async (folder) => {
    if (!existsSync('/proc/self/fd')) skip('there is no /proc here');
    const input = writeSmallDecoder(folder);
    // A link of our own, so that nothing but it could be replaced.
    const link = join(folder, 'stdout');
    symlinkSync('/proc/self/fd/1', link);
    const { code, stderr } = await runCli(input, link, ...FUSE);
    assert.is(code, 2);
    assert.match(stderr, /OF_NOT_A_FILE .*an open file of a process/);
    assert.is(readlinkSync(link), '/proc/self/fd/1');
  }));

test('a report goes into a pipe as it is, and the pipe stays', () =>
  inWorkspace(async (folder) => {
    const input = writeSmallDecoder(folder);
    const pipe = pipeIn(folder, 'report.json');
    const { text } = readerOf(pipe);
    const { code, stderr } = await runCli(input, join(folder, 'out.onnx'), ...FUSE, '--report', pipe);
    assert.is(code, 0, stderr);
    assert.equal(JSON.parse(await text).facts['remove-attention'].length, 3);
    assert.ok(isPipe(pipe));
  }));

test('a report into a pipe that nobody reads is an error, not a wait without end', () =>
  inWorkspace(async (folder) => {
    const input = writeSmallDecoder(folder);
    const pipe = pipeIn(folder, 'report.json');
    const { code, stderr } = await runCli(input, join(folder, 'out.onnx'), ...FUSE, '--report', pipe);
    assert.is(code, 1);
    assert.match(stderr, /OF_WRITE .*report\.json: it cannot be written: nobody has read from it for 5 s/);
    assert.ok(isPipe(pipe));
  }));

test('a report into a file that is open already goes on where it is', () =>
  inWorkspace((folder) => {
    if (!existsSync('/proc/self/fd')) skip('there is no /proc here');
    const input = writeSmallDecoder(folder);
    const link = join(folder, 'here');
    symlinkSync('/proc/self/fd/1', link);
    const out = openSync(join(folder, 'captured'), 'w');
    const argv = [BIN, 'inspect', input, '--json'];
    assert.is(spawnSync(process.execPath, argv, { stdio: ['ignore', out, 'pipe'] }).status, 0);
    const fused = [BIN, input, join(folder, 'out.onnx'), ...FUSE, '--report', link];
    const { status, stderr } = spawnSync(process.execPath, fused, { stdio: ['ignore', out, 'pipe'] });
    assert.is(status, 0, String(stderr));
    const text = readFileSync(join(folder, 'captured'), 'utf8');
    const at = text.indexOf('\n}\n') + 3;
    assert.is(JSON.parse(text.slice(0, at)).layers.length, 5);
    assert.is(JSON.parse(text.slice(at)).facts['remove-attention'].length, 3);
    assert.is(readlinkSync(link), '/proc/self/fd/1');
  }));

test('a file or a link that lies beside a report is neither followed nor lost', () =>
  inWorkspace(async (folder) => {
    const input = writeSmallDecoder(folder);
    const report = join(folder, 'report.json');
    writeFileSync(join(folder, 'victim'), 'mine');
    symlinkSync('victim', `${report}.new`);
    const argv = [input, join(folder, 'out.onnx'), ...FUSE, '--report', report];
    assert.is((await runCli(...argv)).code, 0);
    assert.is(readFileSync(join(folder, 'victim'), 'utf8'), 'mine');
    assert.is(readlinkSync(`${report}.new`), 'victim');
    assert.is(JSON.parse(readFileSync(report, 'utf8')).facts['remove-attention'].length, 3);
    // A report that is itself a link: the link is replaced, what it leads to is not.
    const link = join(folder, 'link.json');
    symlinkSync('victim', link);
    assert.is((await runCli(...argv.slice(0, -1), link)).code, 0);
    assert.is(readFileSync(join(folder, 'victim'), 'utf8'), 'mine');
    assert.equal(
      readdirSync(folder).filter((name) => name.endsWith('.new')),
      ['report.json.new'],
    );
  }));

test('an input that is a pipe is refused, not waited for', () =>
  inWorkspace(async (folder) => {
    const input = writeSmallDecoder(folder);
    const pipe = pipeIn(folder, 'in.onnx');
    const out = join(folder, 'out.onnx');
    for (const argv of [
      [pipe, out],
      [input, out, '--remove-attention', pipe],
      [input, out, '--plan', pipe],
      [input, out, '--config', pipeIn(folder, 'config.json')],
      ['report', pipe],
      ['golden', input, pipe],
      ['verify', input, input, '--data', pipeIn(folder, 'text.jsonl')],
      ['verify', input, input, '--data', pipeIn(folder, 'ids.npy')],
    ]) {
      const { code, stderr } = await runCli(...argv);
      assert.is(code, 1, argv.join(' '));
      assert.match(stderr, /^onnx-fuse: OF_READ .*it is not a regular file.*\n$/);
    }
    mkdirSync(join(folder, 'in'));
    pipeIn(join(folder, 'in'), 'genai_config.json');
    const { code, stderr } = await runCli(join(folder, 'in'), out);
    assert.is(code, 1);
    assert.match(stderr, /OF_LEAVES_FOLDER .*genai_config\.json' is not used: it is not a regular file/);
  }));

test('a report takes no place of what the command reads or writes, and its folder is looked for first', () =>
  inWorkspace(async (folder) => {
    const input = writeSmallDecoder(folder);
    const [output, link] = [join(folder, 'out.onnx'), join(folder, 'link.onnx')];
    symlinkSync(input, link);
    const before = readFileSync(input);
    const overwrites = /^onnx-fuse: OF_OUTPUT_IS_INPUT .* would overwrite '.*'.*\n$/;
    for (const [flag, target, from, code] of [
      ['--report', input, input, overwrites],
      ['--report', input, link, overwrites],
      ['--block-configs', input, input, overwrites],
      ['--report', output, input, overwrites],
      ['--report', join(folder, 'gone', 'r.json'), input, /^onnx-fuse: OF_USAGE .*the output folder does not exist/],
    ] as const) {
      const ran = await runCli(from, output, ...FUSE, flag, target);
      assert.is(ran.code, 2, ran.stderr);
      assert.match(ran.stderr, code);
      assert.not(existsSync(output), `${flag} ${target}`);
    }
    for (const words of [
      ['bench', input],
      ['inspect', input],
      ['verify', input, input],
    ]) {
      const { stderr } = await runCli(...words, `--json=${input}`);
      assert.match(stderr, overwrites);
      assert.equal(readFileSync(input), before);
    }
    // The data of a model are known once it is read: they stay what they are, too.
    const data = readFileSync(`${input}.data`);
    assert.match((await runCli(input, output, ...FUSE, '--report', `${input}.data`)).stderr, overwrites);
    assert.equal(readFileSync(`${input}.data`), data);
    assert.equal(readFileSync(input), before);
  }));

test.run();
