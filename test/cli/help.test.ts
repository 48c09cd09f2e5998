/** What the command line says about itself, against golden/cli/help.txt. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createTwoFilesPatch } from 'diff';
import * as assert from 'uvu/assert';
import { GOLDEN_ROOT } from '../helpers/golden.js';
import { BIN } from '../helpers/paths.js';
import { suite } from '../helpers/suite.js';
import { CLI_PAGE, cliPage } from '../pages/cli-page.js';

const test = suite('help');

const FILE = join(GOLDEN_ROOT, 'cli', 'help.txt');
const ACCEPT = 'ONNX_FUSE_ACCEPT=1 node dist/test/run.js cli/help';

function onnxFuse(...argv: string[]): { code: number | null; stdout: string; stderr: string } {
  // A fixed width: text must not depend on who reads it.
  const env = { ...process.env, COLUMNS: '110', NO_COLOR: '1', LC_ALL: 'C' };
  const { status, stdout, stderr } = spawnSync(process.execPath, [BIN, ...argv], { encoding: 'utf8', env });
  return { code: status, stdout, stderr };
}

/** The subcommands that the main help lists. */
function commandsIn(help: string): string[] {
  return [...help.matchAll(/^ {2}onnx-fuse ([a-z]+)\b/gm)].map((match) => match[1] as string);
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
});

test('docs/cli.md says what the help says', () => {
  assert.ok(readFileSync(CLI_PAGE, 'utf8') === cliPage(), 'docs/cli.md differs: npm run docs writes it');
});

test('help lines fit the width', () => {
  const long = readFileSync(FILE, 'utf8')
    .split('\n')
    .filter((line) => line.length > 110);
  assert.equal(long, []);
});

test.run();
