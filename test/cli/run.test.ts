/** Flags in files: of one command (`--config`), and a list of commands (`onnx-fuse run`). */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { saveModel } from '../../ir/index.js';
import { goldenInput } from '../helpers/golden-check.js';
import { ROOT, TALES12 } from '../helpers/paths.js';
import { suite } from '../helpers/suite.js';
import { inWorkspace, runCli } from '../helpers/workspace.js';

const test = suite('run');

/** A file with an object as JSON. */
function put(folder: string, name: string, value: object): string {
  const path = join(folder, name);
  writeFileSync(path, JSON.stringify(value));
  return path;
}

interface Ran {
  readonly kind: string;
  readonly status: string;
  readonly code?: string;
  readonly results: readonly {
    readonly command: string;
    readonly kind: string;
    readonly status: string;
    readonly code?: string;
  }[];
}

test('a file runs plan, fuse, verify, bench and report, in order, a line each', () =>
  inWorkspace(async (folder) => {
    const path = (name: string): string => join(folder, name);
    writeFileSync(path('calib.txt'), readFileSync(join(ROOT, 'golden/models/tales12.txt')).subarray(0, 1024));
    const text = { data: path('calib.txt'), length: 64 };
    const plan = path('plan.json');
    const file = put(folder, 'pipeline.json', {
      $schema: '../schemas/config/run.json',
      commands: [
        {
          command: 'plan',
          model: TALES12,
          output: plan,
          ...text,
          'remove-attention': [4, 5],
          device: 'h100x8',
          recover: false,
        },
        { command: 'fuse', input: TALES12, output: path('out.onnx'), plan },
        {
          command: 'verify',
          a: TALES12,
          b: path('out.onnx'),
          ...text,
          timing: false,
          generate: 4,
          json: path('verify.json'),
        },
        {
          command: 'bench',
          a: TALES12,
          b: path('out.onnx'),
          prompt: 4,
          decode: 2,
          rounds: 1,
          json: path('bench.json'),
        },
        { command: 'report', plan, output: path('page.html'), verify: path('verify.json'), bench: path('bench.json') },
      ],
    });
    const { code, stdout, stderr } = await runCli('run', file, '--json', path('all.json'));
    assert.is(code, 0, stderr);
    const lines = stdout.trimEnd().split('\n');
    assert.equal(
      lines.map((line) => line.replace(/, [\d.]+ s$/, '')),
      ['plan', 'fuse', 'verify', 'bench', 'report'].map((name, i) => `${i + 1} of 5: ${name} is done`),
    );
    const { kind, status, results } = JSON.parse(readFileSync(path('all.json'), 'utf8')) as Ran;
    assert.equal([kind, status], ['onnx-fuse run', 'done']);
    assert.equal(
      results.map((each) => `${each.command}: ${each.kind}`),
      ['plan: plan', 'fuse: fusion', 'verify: verification', 'bench: benchmark', 'report: page'].map((each) =>
        each.replace(': ', ': onnx-fuse '),
      ),
    );
    assert.match(readFileSync(path('page.html'), 'utf8'), /held out|one token/i);
  }));

test('it stops at the first that fails, with its error and its exit code', () =>
  inWorkspace(async (folder) => {
    const path = (name: string): string => join(folder, name);
    await saveModel(goldenInput('pipeline/adds'), path('in.onnx'));
    const commands = [
      { command: 'fuse', input: path('in.onnx'), output: path('out.onnx'), 'remove-attention': '1-2', verify: false },
      { command: 'verify', a: path('in.onnx'), b: path('out.onnx'), tolerance: 1e-9, json: path('verify.json') },
      { command: 'pack', model: path('out.onnx'), whole: path('whole.onnx') },
    ];
    const over = await runCli('run', put(folder, 'a.json', { commands }), '--json', '--quiet');
    assert.is(over.code, 1);
    assert.match(over.stderr, /^onnx-fuse: OF_TOLERANCE .*\n$/);
    const { status, code, results } = JSON.parse(over.stdout) as Ran;
    assert.equal([status, code, results.map((each) => each.status)], ['failed', 'OF_TOLERANCE', ['done', 'failed']]);
    assert.is((JSON.parse(readFileSync(path('verify.json'), 'utf8')) as Ran).code, 'OF_TOLERANCE');
    assert.not(existsSync(path('whole.onnx')));
    // One that has no result at all.
    writeFileSync(path('none.onnx'), 'no model');
    const broken = [{ command: 'inspect', model: path('none.onnx') }, ...commands];
    const gone = await runCli('run', put(folder, 'b.json', { commands: broken }));
    assert.equal([gone.code, gone.stdout.replace(/, [\d.]+ s/, '')], [1, '1 of 4: inspect failed (OF_NOT_ONNX)\n']);
    assert.match(gone.stderr, /^onnx-fuse: OF_NOT_ONNX .*none\.onnx.*\n$/);
  }));

test('all of a file is checked before its first command runs', () =>
  inWorkspace(async (folder) => {
    const input = join(folder, 'in.onnx');
    await saveModel(goldenInput('pipeline/adds'), input);
    const first = { command: 'fuse', input, output: join(folder, 'out.onnx'), verify: false };
    const bad: [expected: RegExp, content: object][] = [
      [
        /OF_NO_SUCH_FILE .*bad\.json, commands\[1\], data: .*calib\.txt: there is no such file/,
        { command: 'verify', a: input, b: join(folder, 'out.onnx'), data: join(folder, 'calib.txt') },
      ],
      [
        /OF_CONFIG .*bad\.json, commands\[1\]: there is no key 'max-kk'; did you mean 'max-kl'\?/,
        { command: 'verify', a: input, b: input, 'max-kk': 1 },
      ],
      [
        /commands\[1\], max-kl: expected a number, found "little"/,
        { command: 'verify', a: input, b: input, 'max-kl': 'little' },
      ],
      [
        /commands\[1\], provider: expected one of cpu, cuda, webgpu, found 'tpu'/,
        { command: 'bench', a: input, provider: 'tpu' },
      ],
      [/--max-kl: it has no effect without --data/, { command: 'verify', a: input, b: input, 'max-kl': 1 }],
      [/commands\[1\]: 'b' is missing/, { command: 'verify', a: input }],
      [/there is no command 'verfy'; did you mean 'verify'\?/, { command: 'verfy', a: input, b: input }],
      [/there is no command 'run'/, { command: 'run', file: 'x.json' }],
      [/commands\[1\], command: expected a string, found nothing/, { model: input }],
      [/json: standard output is for all results/, { command: 'inspect', model: input, json: '-' }],
      [
        /OF_OUTPUT_IS_INPUT .*bad\.json' would overwrite|OF_OUTPUT_IS_INPUT .*bad\.json/,
        { command: 'inspect', model: input, json: join(folder, 'bad.json') },
      ],
      [/commands\[1\], output: '.*out\.onnx' is written by another command, too/, { ...first }],
      [/commands\[1\]: 'output' is missing/, { command: 'fuse', input }],
      [
        /--max-kl: there is neither a budget nor a speed to reach/,
        { command: 'plan', model: input, output: join(folder, 'p.json') },
      ],
      [
        /OF_USAGE .*bad\.json, commands\[1\], output: .*no: the output folder does not exist/,
        { command: 'report', plan: input, output: join(folder, 'no', 'p.html') },
      ],
    ];
    for (const [expected, content] of bad) {
      const { code, stdout, stderr } = await runCli('run', put(folder, 'bad.json', { commands: [first, content] }));
      assert.equal([code, stdout], [2, ''], stderr);
      assert.match(stderr, expected);
      assert.not(existsSync(join(folder, 'out.onnx')));
    }
    for (const [expected, content] of [
      [/there is no key 'comands'; did you mean 'commands'\?/, { comands: [] }],
      [/commands: expected a list of commands/, { commands: [] }],
      [/commands\[0\]: expected an object, found "plan"/, { commands: ['plan'] }],
    ] as const) {
      assert.match((await runCli('run', put(folder, 'bad.json', content))).stderr, expected);
    }
  }));

test('--config of any command gives its flags; those of the command line win', () =>
  inWorkspace(async (folder) => {
    const path = (name: string): string => join(folder, name);
    await saveModel(goldenInput('pipeline/adds'), path('in.onnx'));
    await runCli(path('in.onnx'), path('out.onnx'), '--remove-attention', '1-2', '--no-verify', '--quiet');
    const config = put(folder, 'verify.json', { $schema: 'x', tolerance: 1e-9, quiet: true });
    const both = ['verify', path('in.onnx'), path('out.onnx'), '--config', config];
    const strict = await runCli(...both);
    assert.is(strict.code, 1);
    assert.match(strict.stderr, /OF_TOLERANCE/);
    assert.is((await runCli(...both, '--tolerance', '1e9')).code, 0);
    // A default of ours does not win over the file.
    const bench = put(folder, 'bench.json', {
      prompt: 3,
      decode: 2,
      rounds: 1,
      batch: [1, 2],
      json: path('times.json'),
    });
    const timed = await runCli('bench', path('in.onnx'), `--config=${bench}`, '--decode', '1');
    assert.is(timed.code, 0, timed.stderr);
    const times = JSON.parse(readFileSync(path('times.json'), 'utf8')) as Record<string, unknown> & { rows: unknown[] };
    assert.equal([times['prompt'], times['decode'], times['rounds']], [3, 1, 1]);
    for (const [expected, words, content] of [
      [
        /OF_CONFIG .*c\.json: there is no key 'tolerence'; did you mean 'tolerance'\?/,
        both.slice(0, 3),
        { tolerence: 1 },
      ],
      [/there is no key 'a'/, both.slice(0, 3), { a: path('in.onnx') }],
      [/c\.json, accept: expected a boolean, found "yes"/, ['golden', path('in.onnx'), path('g')], { accept: 'yes' }],
      [/OF_OUTPUT_IS_INPUT/, ['inspect', path('in.onnx'), '--json', path('c.json')], {}],
      [/OF_NO_SUCH_FILE .*gone\.json/, ['inspect', path('in.onnx'), '--config', path('gone.json')], {}],
    ] as const) {
      const file = put(folder, 'c.json', content);
      const { code, stderr } = await runCli(
        ...(words.includes('--config' as never) ? words : [...words, '--config', file]),
      );
      assert.is(code, 2, stderr);
      assert.match(stderr, expected);
    }
  }));

test.run();
