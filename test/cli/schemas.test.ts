/** The schemas of `schemas/`: what every command really gives fits its own, and what is spoilt does not. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv } from 'ajv';
import * as assert from 'uvu/assert';
import { saveModel } from '../../ir/index.js';
import { goldenInput } from '../helpers/golden-check.js';
import { ROOT, TALES12 } from '../helpers/paths.js';
import { planExample } from '../helpers/plan-example.js';
import { suite } from '../helpers/suite.js';
import { inWorkspace, runCli } from '../helpers/workspace.js';
import { SCHEMAS, type Schema, schemas, schemaText } from '../pages/schemas.js';

const test = suite('schemas');

/** Numbers beyond any limit are 1e999 in the JSON. */
const ajv = new Ajv({ strictNumbers: false, allowUnionTypes: true, allErrors: true });
const MADE = schemas();

/** What is wrong with a value by the schema in this file; empty where it fits. */
function wrongs(file: string, value: unknown): string {
  const schema = MADE.get(file) as Schema;
  return ajv.validate(schema, value) ? '' : ajv.errorsText();
}

test('schemas/ holds what the types and the flags say', () => {
  const found = readdirSync(SCHEMAS, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.json'));
  assert.equal(found.map((file) => file.replaceAll('\\', '/')).sort(), [...MADE.keys()].sort());
  for (const [file, schema] of MADE) {
    assert.ok(
      readFileSync(join(SCHEMAS, file), 'utf8') === schemaText(schema),
      `${file} differs: npm run docs writes it`,
    );
  }
});

type Data = Record<string, unknown>;

/** Paths whose form is left open: options and facts of any pass, results of any command. */
const OPEN = /^(?:options|facts|results)\b|\.(?:options|statistics|facts)\b|^steps\.0\.statistics/;

/** Each value of the data is replaced by one of another type, and each that must be there is taken away: paths that nobody missed. */
function unnoticed(file: string, data: Data): string[] {
  const found: string[] = [];
  const { required } = MADE.get(file) as { required: string[] };
  for (const key of required) {
    const { [key]: _, ...rest } = data;
    if (wrongs(file, rest) === '') found.push(`without ${key}`);
  }
  const visit = (holder: Data | unknown[], path: string): void => {
    for (const [key, value] of Object.entries(holder).slice(0, Array.isArray(holder) ? 1 : undefined)) {
      const at = path === '' ? key : `${path}.${key}`;
      if (OPEN.test(at)) continue;
      const target = holder as Data;
      target[key] = typeof value === 'string' ? true : 'of another type';
      // A null may stand for a text that is not there.
      if (wrongs(file, data) === '' && value !== null) found.push(at);
      target[key] = value;
      if (typeof value === 'object' && value !== null) visit(value as Data, at);
    }
  };
  visit(data, '');
  return found;
}

test('every command gives JSON that fits its schema, and spoilt JSON does not', () =>
  inWorkspace(async (folder) => {
    const path = (name: string): string => join(folder, name);
    const [input, output, calib] = [path('in.onnx'), path('out.onnx'), path('calib.txt')];
    await saveModel(goldenInput('pipeline/adds'), input);
    writeFileSync(calib, readFileSync(join(ROOT, 'golden/models/tales12.txt')).subarray(0, 1024));
    writeFileSync(path('example.json'), JSON.stringify(planExample()));
    writeFileSync(path('run.config.json'), JSON.stringify({ commands: [{ command: 'inspect', model: input }] }));
    const text = ['--data', calib, '--length', '64'];
    const kinds = new Set(['failure']);
    for (const [kind, code, words] of [
      ['fusion', 0, [input, output, '--remove-attention', '1-2']],
      [
        'fusion',
        0,
        [
          TALES12,
          path('mapped.onnx'),
          '--remove-attention',
          '4-5',
          '--recover',
          ...text,
          '--prompt',
          'Once',
          '--tokens',
          '2',
        ],
      ],
      [
        'plan',
        0,
        [
          'plan',
          TALES12,
          '-o',
          path('plan.json'),
          ...text,
          '--remove-attention',
          '4-5',
          '--device',
          'h100x8',
          '--random',
          '1',
        ],
      ],
      ['inspection', 0, ['inspect', TALES12]],
      ['text', 0, ['print', input]],
      [
        'verification',
        1,
        ['verify', TALES12, path('mapped.onnx'), ...text, '--no-timing', '--generate', '2', '--max-kl', '0'],
      ],
      ['verification', 0, ['verify', input, output]],
      ['comparison', 0, ['golden', input, path('in.golden'), '--accept']],
      ['packing', 0, ['pack', input, path('whole.onnx')]],
      ['passes', 0, ['passes']],
      ['ranks', 0, ['shard', input, path('ranks'), '--tp', '2']],
      ['ranks', 0, ['shard', TALES12, path('segments'), '--tp', '2', '--collectives', 'external', '--no-verify']],
      ['annotation', 0, ['shard', input, path('annotated.onnx'), '--tp', '2', '--collectives', 'annotate']],
      ['benchmark', 0, ['bench', input, output, '--prompt', '4', '--decode', '2', '--rounds', '1']],
      ['page', 0, ['report', path('example.json'), '-o', path('page.html')]],
      ['environment', 0, ['env']],
      ['run', 0, ['run', path('run.config.json')]],
      ['failure', 2, ['inspect', path('none.onnx')]],
    ] as const) {
      const ran = await runCli(...words, '--json');
      assert.is(ran.code, code, `${words.join(' ')}: ${ran.stderr}`);
      const data = JSON.parse(ran.stdout) as Data;
      assert.is(data['kind'], `onnx-fuse ${kind}`);
      const file = `output/${kind}.json`;
      assert.is(wrongs(file, data), '', `${words.join(' ')}: the schema does not take what was given`);
      assert.equal(unnoticed(file, data), [], words.join(' '));
      kinds.add(kind);
    }
    assert.equal(
      [...kinds].map((kind) => `output/${kind}.json`).sort(),
      [...MADE.keys()].filter((file) => file.startsWith('output/')).sort(),
    );
    const plan = JSON.parse(readFileSync(path('plan.json'), 'utf8')) as Data;
    assert.is(wrongs('plan.json', plan), '');
    assert.equal(unnoticed('plan.json', plan), []);
    // The name of its schema is allowed in a plan, and says nothing.
    writeFileSync(path('plan.json'), JSON.stringify({ $schema: './schemas/plan.json', ...plan }));
    const applied = await runCli(TALES12, path('planned.onnx'), '--plan', path('plan.json'), '--no-verify', '--quiet');
    assert.is(applied.code, 0, applied.stderr);
    assert.is(wrongs('plan.json', JSON.parse(readFileSync(path('plan.json'), 'utf8'))), '');
    assert.match(
      wrongs('output/inspection.json', { kind: 'onnx-fuse inspection', version: 1, status: 'failed' }),
      /remedy/,
    );
  }));

test('configs fit their schemas where the command takes them, and do not where it refuses them', async () => {
  const fits: [file: string, value: object][] = [
    [
      'config/fuse.json',
      {
        $schema: 'x',
        'remove-attention': [4, 5],
        runs: [[2, 3, 5]],
        plugins: ['./a.mjs'],
        presets: { quick: { verify: false } },
      },
    ],
    [
      'config/fuse.json',
      {
        'remove-attention': '4-9',
        'keep-last': 0,
        'quantize-maps': 4,
        'map-rank': 64,
        pipeline: ['quick-gelu', 'drop-dead'],
      },
    ],
    ['config/verify.json', { data: 'heldout.txt', 'max-kl': 0.05, timing: false }],
    ['config/bench.json', { batch: [1, 8], provider: 'cuda' }],
    ['config/plan.json', { data: ['a.txt', 'b.txt'] }],
    [
      'run.json',
      { $schema: 'x', commands: [{ command: 'verify', a: 'a.onnx', b: 'b.onnx', 'max-kl': 0.05, data: 't.txt' }] },
    ],
  ];
  for (const [file, value] of fits) assert.is(wrongs(file, value), '', `${file} ${JSON.stringify(value)}`);
  for (const [file, value] of [
    ['config/fuse.json', { 'keep-last': 'one' }],
    ['config/fuse.json', { keepLast: 1 }],
    ['config/fuse.json', { presets: { quick: { norm: 'first' } } }],
    ['config/verify.json', { 'max-kl': '0.05' }],
    ['config/verify.json', { a: 'a.onnx' }],
    ['config/bench.json', { provider: 'tpu' }],
    ['run.json', { commands: [] }],
    ['run.json', { commands: [{ command: 'verify', a: 'a.onnx' }] }],
    ['run.json', { commands: [{ command: 'run', file: 'x.json' }] }],
    ['run.json', { commands: [{ command: 'inspect', model: 'a.onnx', depth: 1 }] }],
  ] as const) {
    assert.is.not(wrongs(file, value), '', `${file} ${JSON.stringify(value)}`);
  }
});

test('the configs that the docs show fit their schemas', () => {
  const page = readFileSync(join(ROOT, 'docs', 'plugins.md'), 'utf8');
  const blocks = [...page.matchAll(/^```json\n([\s\S]*?)^```$/gm)].map(
    ([, text]) => JSON.parse(text as string) as object,
  );
  assert.equal(
    blocks.map((block) => wrongs('commands' in block ? 'run.json' : 'config/fuse.json', block)),
    ['', ''],
  );
});

test.run();
