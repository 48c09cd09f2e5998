/** What the command line says about itself, against golden/cli/help.txt. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createTwoFilesPatch } from 'diff';
import * as assert from 'uvu/assert';
import { parseArguments } from '../../cli/options/parse.js';
import type { CommandSpec } from '../../cli/options/spec.js';
import { GOLDEN_ROOT } from '../helpers/golden.js';
import { BIN, ROOT } from '../helpers/paths.js';
import { suite } from '../helpers/suite.js';
import { onTerminal, runCli } from '../helpers/workspace.js';
import { CLI_PAGE, cliPage } from '../pages/cli-page.js';

const test = suite('help');

const FILE = join(GOLDEN_ROOT, 'cli', 'help.txt');
const ACCEPT = 'ONNX_FUSE_ACCEPT=1 node dist/test/run.js cli/help';

function onnxFuse(...argv: string[]): { code: number | null; stdout: string; stderr: string } {
  // Without a terminal text does not depend on who reads it.
  const env = { ...process.env, NO_COLOR: '1', LC_ALL: 'C' };
  const { status, stdout, stderr } = spawnSync(process.execPath, [BIN, ...argv], { encoding: 'utf8', env });
  return { code: status, stdout, stderr };
}

/** The subcommands that the main help lists. */
function commandsIn(help: string): string[] {
  const list = /^Commands:\n([\s\S]*?)\n\n/m.exec(help)?.[1] ?? '';
  return [...list.matchAll(/^ {2}onnx-fuse ([a-z]+)\b/gm)].map((match) => match[1] as string);
}

test('the help of every command is as recorded', () => {
  const main = onnxFuse('--help').stdout;
  const commands = commandsIn(main);
  assert.ok(commands.length >= 4, `only ${commands.length} commands in the help`);
  const pages = [[], ...commands.map((command) => [command])].map((words) => {
    const argv = [...words, '--help'];
    const { code, stdout, stderr } = onnxFuse(...argv);
    assert.equal({ code, stderr }, { code: 0, stderr: '' });
    return `$ onnx-fuse ${argv.join(' ')}\n${stdout.trimEnd()}\n`;
  });
  const found = pages.join('\n');
  if (process.env['ONNX_FUSE_ACCEPT'] === '1' && process.env['CI'] !== 'true') writeFileSync(FILE, found);
  const expected = existsSync(FILE) ? readFileSync(FILE, 'utf8') : '';
  const patch = createTwoFilesPatch('expected', 'found', expected, found, '', '', { context: 2 });
  assert.ok(expected === found, `golden/cli/help.txt differs\n${patch}\nIf this is right: ${ACCEPT}`);
  // Columns of the help are counted in characters (build/bundle.mjs).
  assert.match(found, /^[\n -~]*$/);
});

test('docs/cli.md says what the help says', () => {
  assert.ok(readFileSync(CLI_PAGE, 'utf8') === cliPage(), 'docs/cli.md differs: npm run docs writes it');
});

test('help fits into 80 columns, every flag has a heading, and examples stay on their lines', () => {
  const text = readFileSync(FILE, 'utf8');
  assert.equal(
    text.split('\n').filter((line) => line.length > 80),
    [],
  );
  assert.not.match(text, /^Options:/m);
  const pages = text.split(/^\$ /m).slice(1);
  for (const page of pages) {
    const examples = page.split('\nExamples:\n')[1]?.split('\n\n')[0]?.trimEnd().split('\n') ?? [];
    assert.ok(examples.length >= 2, `no example in ${page.slice(0, 40)}`);
    for (const line of examples) assert.match(line, /^ {2}(# |onnx-fuse )/, page.slice(0, 40));
  }
});

test('every example is a line that its command understands', async () => {
  const specs = new Map<string, CommandSpec>();
  for (const file of readdirSync(join(ROOT, 'dist', 'cli', 'options'))) {
    if (!file.endsWith('.js')) continue;
    for (const value of Object.values(await import(`../../cli/options/${file}`))) {
      if (isSpec(value)) specs.set(value.name, value);
    }
  }
  assert.ok(specs.size > 10);
  const lines = [...specs.values()].flatMap(({ examples = [] }) => examples.map(({ line }) => line));
  assert.ok(lines.length > specs.size);
  for (const line of lines) {
    const words = line.split(/ [|>]/)[0]?.split(' ') ?? [];
    const named = specs.get(words[0] as string);
    parseArguments(named ?? (specs.get('') as CommandSpec), named ? words.slice(1) : words);
  }
});

function isSpec(value: unknown): value is CommandSpec {
  return typeof value === 'object' && value !== null && 'summary' in value && 'flags' in value;
}

test('a terminal has help in its own width, within reason', async () => {
  const widest = async (columns: number): Promise<number> => {
    const { stdout } = await onTerminal({ columns }, () => runCli('plan', '--help'));
    return Math.max(...stdout.split('\n').map((line) => line.length));
  };
  assert.ok((await widest(60)) <= 60);
  const [usual, wide] = [await widest(100), await widest(300)];
  assert.ok(usual > 90 && usual <= 100, `${usual} columns of 100`);
  assert.ok(wide > 100 && wide <= 110, `${wide} columns of 300`);
});

test('-h, --help and help COMMAND are the same, and so are -v and --version', async () => {
  const { stdout } = await runCli('plan', '--help');
  assert.match(stdout, /^onnx-fuse plan <model>/);
  for (const argv of [
    ['plan', '-h'],
    ['help', 'plan'],
    ['plan', '--nonsense', '-h'],
  ]) {
    assert.equal(await runCli(...argv), { code: 0, stdout, stderr: '' });
  }
  assert.is((await runCli('help')).stdout, (await runCli('-h')).stdout);
  const version = await runCli('--version');
  assert.match(version.stdout, /^\d+\.\d+\.\d+\S*\n$/);
  assert.equal(await runCli('-v'), version);
  const unknown = await runCli('help', 'insepct');
  assert.is(unknown.code, 2);
  assert.match(unknown.stderr, /^onnx-fuse: OF_USAGE there is no command 'insepct'; did you mean 'inspect'\?\n$/);
});

test('a shell is told what a line may go on with, and takes files where nothing is proposed', async () => {
  const proposed = async (...line: string[]): Promise<string[]> => {
    const { code, stdout, stderr } = await runCli('--get-yargs-completions', 'onnx-fuse', ...line);
    assert.equal({ code, stderr }, { code: 0, stderr: '' });
    return stdout.split('\n').filter(Boolean);
  };
  const shell = process.env['SHELL'];
  process.env['SHELL'] = '/bin/bash';
  try {
    const commands = commandsIn((await runCli('--help')).stdout);
    assert.equal((await proposed('')).sort(), commands.sort());
    const flags = await proposed('plan', '--');
    assert.ok(flags.includes('--max-kl') && flags.includes('--no-recover'), flags.join(' '));
    assert.not.ok(flags.includes('--q'), 'a letter is no word');
    assert.not.ok(flags.includes('--strip-metadata'), 'a flag of another command');
    assert.ok((await proposed('in.onnx', 'out.onnx', '--')).includes('--strip-metadata'));
    assert.equal(await proposed('plan', 'smol', '--fuse', ''), ['auto', 'always', 'never']);
    assert.equal(await proposed('plan', ''), []);
    const { code, stdout } = await runCli('completion');
    assert.is(code, 0);
    assert.match(stdout, /onnx-fuse --get-yargs-completions/);
    assert.match(stdout, /complete .* onnx-fuse$/m);
  } finally {
    if (shell === undefined) delete process.env['SHELL'];
    else process.env['SHELL'] = shell;
  }
});

test.run();
