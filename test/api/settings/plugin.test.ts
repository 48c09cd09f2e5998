/** Passes of users: the example, what is refused, and what happens when one misbehaves. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import * as assert from 'uvu/assert';
import { fuse, type Report } from '../../../api/index.js';
import { Diagnostic, openModel, parseModel, printModel } from '../../../ir/index.js';
import {
  type AnyPass,
  definePass,
  extendRegistry,
  parsePipeline,
  registry,
  runPipeline,
} from '../../../passes/index.js';
import { BIN, ROOT, TALES12 } from '../../helpers/paths.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, type Outcome, runCli } from '../../helpers/workspace.js';

const test = suite('plugin');
const EXAMPLE = join(ROOT, 'examples', 'my-pass.mjs');

/** Runs `pipeline` with the plugin of this text. */
async function runPlugin(folder: string, text: string, pipeline: string, ...argv: string[]): Promise<Outcome> {
  const path = join(folder, 'plugin.mjs');
  writeFileSync(path, text);
  const output = join(folder, 'out.onnx');
  return runCli(TALES12, output, '--quiet', '--no-verify', '--plugin', path, '--pipeline', pipeline, ...argv);
}

/** A plugin with one pass, which a test changes a little. */
function pluginText(fields: Readonly<Record<string, string>> = {}): string {
  const all = {
    id: `'mine'`,
    summary: `'a test'`,
    effect: `'exact'`,
    options: '{}',
    statistics: '{}',
    run: '() => {}',
    ...fields,
  };
  const entries = Object.entries(all).map(([key, value]) => `${key}: ${value}`);
  return `export const passes = [{ ${entries.join(', ')} }];`;
}

async function refused(text: string, pipeline = 'mine'): Promise<string> {
  return inWorkspace(async (folder) => {
    const { code, stdout, stderr } = await runPlugin(folder, text, pipeline);
    assert.is(code, 2, stderr);
    assert.is(stdout, '');
    assert.is(stderr.trimEnd().split('\n').length, 1, stderr);
    assert.match(stderr, /^onnx-fuse: OF_PLUGIN /);
    assert.not(existsSync(join(folder, 'out.onnx')));
    return stderr;
  });
}

test('the example runs in a pipeline with our passes, and passes the algebra check', () =>
  inWorkspace(async (folder) => {
    const output = join(folder, 'out.onnx');
    const pipeline = 'quick-gelu,remove-attention{layers=3-6},parallelize-ffn,concat-ffn,drop-dead';
    const { code, stdout, stderr } = await runCli(TALES12, output, '--plugin', EXAMPLE, '--pipeline', pipeline);
    assert.is(code, 0, stderr);
    assert.match(stdout, /algebra +pass/);
    assert.match(stdout, /^12 times x \* Sigmoid\(x\) became one QuickGelu$/m);
    assert.match(
      stdout,
      /the FFNs of layers 3-5 became one: 3 x 352 -> 1056/,
      'the FFNs fuse with the new activation too',
    );
    const model = openModel(output);
    const ops = [...model.graph.nodes()].map((node) => node.op);
    assert.is(ops.filter((op) => op === 'com.microsoft.QuickGelu').length, 10, 'three of twelve FFNs are one');
    assert.not.ok(ops.includes('Sigmoid'));
    assert.is(model.opset('com.microsoft'), 1);
  }));

/** Two sigmoids: one multiplies its input, the other something else. */
const SIGMOIDS = `<
  ir_version: 10,
  opset_import: ["" : 21]
>
main (float[4] x, float[4] z) => (float[4] y, float[4] w) {
  [gate] s = Sigmoid (x)
  [product] y = Mul (s, x)
  [other] t = Sigmoid (z)
  [mixed] w = Mul (t, x)
}
`;

async function example(): Promise<ReadonlyMap<string, never>> {
  const { passes } = (await import(pathToFileURL(EXAMPLE).href)) as { passes: AnyPass[] };
  return extendRegistry(registry, passes, '') as unknown as ReadonlyMap<string, never>;
}

test('the example replaces what matches, keeps output names, and says why it left the rest', async () => {
  const model = parseModel(SIGMOIDS);
  const { remarks, steps, facts } = runPipeline(model, parsePipeline('quick-gelu', await example()));
  assert.equal(facts, { 'quick-gelu': [{ sigmoid: 'gate' }] });
  assert.equal(
    remarks.map(({ kind, message }) => `${kind}: ${message}`),
    [
      'missed: the result of other does more than multiply its input',
      'passed: 1 times x * Sigmoid(x) is one QuickGelu',
    ],
  );
  assert.is(steps[0]?.statistics['replaced'], 1);
  const text = printModel(model);
  assert.match(text, /\[gate_?1?\] y = com\.microsoft\.QuickGelu <alpha: float = 1\.0> \(x\)/);
  assert.match(text, /\[other\] t = Sigmoid \(z\)/);
  assert.match(text, /"com\.microsoft" : 1/);
});

test('the example obeys its option, and does nothing to a graph without sigmoids', async () => {
  const known = await example();
  const model = openModel(TALES12);
  runPipeline(model, parsePipeline('quick-gelu{most=2}', known));
  assert.is([...model.graph.nodes()].filter((node) => node.opType === 'QuickGelu').length, 2);
  const without = parseModel(SIGMOIDS.replaceAll('Sigmoid', 'Tanh'));
  assert.not(runPipeline(without, parsePipeline('quick-gelu', known)).changed);
  assert.is(without.opset('com.microsoft'), undefined);
});

test('plugins may lie anywhere, import onnx-fuse, and be given more than once', () =>
  inWorkspace(async (folder) => {
    const other = join(folder, 'other.mjs');
    writeFileSync(
      other,
      pluginText({ id: `'other'`, run: '({ count }) => count("seen")', statistics: '{ seen: "x" }' }),
    );
    const text = `
      import { definePass, flagOption, registry } from 'onnx-fuse/passes';
      import { errors, Diagnostic } from 'onnx-fuse/ir';
      export const passes = [definePass({
        id: 'mine', summary: 'x', effect: 'exact', options: { loud: flagOption('x') }, statistics: {},
        run({ options }) { if (options.loud) throw errors.usage('here', registry.size + ' passes', 'be quiet'); },
      })];`;
    const quiet = await runPlugin(folder, text, 'mine,other', '--plugin', other);
    assert.equal({ code: quiet.code, stderr: quiet.stderr }, { code: 0, stderr: '' });
    // The command as it is installed: it and what plugins import are one bundle.
    const argv = [TALES12, join(folder, 'loud.onnx'), '--plugin', join(folder, 'plugin.mjs'), '--quiet'];
    const loud = spawnSync(process.execPath, [BIN, ...argv, '--pipeline', 'mine{loud=true}'], { encoding: 'utf8' });
    assert.is(loud.status, 2, 'a Diagnostic of a plugin is one of ours: there is one copy of the package');
    assert.match(loud.stderr, new RegExp(`OF_USAGE here: ${registry.size} passes; be quiet`));
  }));

test('passes lists them with their options', async () => {
  const { code, stdout } = await runCli('passes', '--plugin', EXAMPLE);
  assert.is(code, 0);
  assert.match(stdout, /quick-gelu {2}\(reassociates\)\n.*QuickGelu\n {4}most: replace at most so many/);
  assert.match(stdout, /concat-ffn/);
  assert.match(stdout, /instrument {2}\(exact\)\n.*\n.*\n {4}reverse: .* {2}\(then changes-function\)\n/);
});

test('a config file names plugins relative to itself', () =>
  inWorkspace(async (folder) => {
    writeFileSync(join(folder, 'mine.mjs'), pluginText());
    const config = join(folder, 'any-name.json');
    writeFileSync(config, JSON.stringify({ plugins: ['./mine.mjs'], pipeline: 'mine' }));
    const { code, stderr } = await runCli(TALES12, join(folder, 'o.onnx'), '--config', config, '--dry-run', '--quiet');
    assert.is(code, 0, stderr);
    assert.match((await runCli('passes', '--config', config)).stdout, /mine {2}\(exact\)/);
  }));

test('fuse takes passes directly', () =>
  inWorkspace(async (folder) => {
    const seen: number[] = [];
    const pass = definePass({
      id: 'mine',
      summary: 'counts',
      effect: 'exact',
      options: {},
      statistics: {},
      run: ({ graph }) => void seen.push(graph.nodeCount),
    });
    const request = { input: TALES12, output: join(folder, 'o.onnx'), pipeline: 'mine', dryRun: true, passes: [pass] };
    const report = await fuse(request);
    assert.is(report.pipeline, 'mine');
    assert.equal(report.options['passes'], ['mine']);
    assert.equal(seen, [openModel(TALES12).graph.nodeCount]);
  }));

test('an id that is taken is refused', async () => {
  assert.match(
    await refused(pluginText({ id: `'concat-ffn'` })),
    /plugin\.mjs: a pass called 'concat-ffn' exists already/,
  );
  const twice = pluginText().replace('export const passes = [', 'const one = ').replace('];', ';');
  assert.match(await refused(`${twice}\nexport const passes = [one, one];`), /a pass called 'mine' exists already/);
});

test('what is no pass is refused, with the place and what was expected', async () => {
  const cases: [Record<string, string>, RegExp][] = [
    [{ id: `'My Pass'` }, /passes\[0\]: expected an id in lower case with hyphens, found 'My Pass'/],
    [{ id: '3' }, /passes\[0\]: expected an id .*found a number/],
    [{ summary: `''` }, /pass mine: expected a summary of one line/],
    [{ summary: `'two\\nlines'` }, /expected a summary of one line/],
    [{ effect: `'harmless'` }, /expected an effect of exact, reassociates, changes-function, found "harmless"/],
    [{ run: '3' }, /expected run to be a function, found a number/],
    [{ options: 'undefined' }, /expected options to be a record, \{\} for none, found undefined/],
    [{ options: '{ Most: {} }' }, /option Most: expected a name in lower case/],
    [{ options: '{ most: 3 }' }, /option most: expected what integerOption and the like return, found a number/],
    [
      { options: `{ most: { help: 'x', fallback: 1, parse: Number } }` },
      /option most: expected print to be a function/,
    ],
    [{ options: `{ most: { help: 'x', parse: Number, print: String } }` }, /option most: expected a fallback/],
    [{ scope: `'everywhere'` }, /pass mine: expected a scope of decoder, or none, found "everywhere"/],
    [{ isPreparation: '1' }, /pass mine: expected isPreparation to be true or false, found a number/],
    [{ isPreparation: 'true', effect: `'reassociates'` }, /pass mine: a preparation is exact, found reassociates/],
    [{ isAuxiliary: `'yes'` }, /pass mine: expected isAuxiliary to be true or false, found a string/],
    [{ facts: '[]' }, /pass mine: expected facts to be what factsAs returns, found an array/],
    [{ facts: '{}' }, /pass mine, facts: expected describe to be a function/],
    [{ facts: '{ describe: () => [], settles: 3 }' }, /facts: expected settles to be a function, or to be left out/],
    [
      { options: `{ most: { help: 'x', fallback: 1, parse: Number, print: String, effect: 'mild' } }` },
      /option most: expected an effect of exact, reassociates, changes-function, found "mild"/,
    ],
    [{ statistics: '[]' }, /expected statistics to be a record, \{\} for none, found an array/],
    [{ statistics: '{ seen: 1 }' }, /expected statistic 'seen' to say in words what it counts/],
  ];
  for (const [fields, expected] of cases) assert.match(await refused(pluginText(fields)), expected);
  assert.match(
    await refused('export const passes = [null];'),
    /passes\[0\]: expected what definePass returns, found null/,
  );
  assert.match(await refused('export const pass = {};'), /exports no array called passes; write export const passes =/);
  assert.match(await refused('export const passes = ['), /cannot be loaded: /);
  assert.match(await refused(`import 'no-such-package-here';`), /cannot be loaded: Cannot find package/);
});

test('a plugin that is not there is refused', async () => {
  const { code, stderr } = await runCli(TALES12, 'out.onnx', '--plugin', './none.mjs', '--pipeline', 'none');
  assert.is(code, 2);
  assert.match(stderr, /OF_NO_SUCH_FILE .*none\.mjs/);
});

test('a pass that throws is named in one line; DEBUG adds the stack', () =>
  inWorkspace(async (folder) => {
    const text = pluginText({ run: '({ graph }) => graph.noSuchThing.at(0)' });
    const { code, stderr } = await runPlugin(folder, text, 'mine');
    assert.is(code, 1);
    assert.match(stderr, /^onnx-fuse: OF_PLUGIN pass mine: it threw TypeError: Cannot read .*; .*DEBUG=1.*\n$/);
    assert.not.match(stderr, /internal error/);
    process.env['DEBUG'] = '1';
    const shown = await runPlugin(folder, text, 'mine').finally(() => delete process.env['DEBUG']);
    assert.match(shown.stderr, /\n {4}at .*plugin\.mjs/);
    assert.not(existsSync(join(folder, 'out.onnx')));
  }));

test('a pass that misuses what it is given is named', async () => {
  await inWorkspace(async (folder) => {
    const { stderr } = await runPlugin(folder, pluginText({ run: `({ count }) => count('nothing')` }), 'mine');
    assert.match(stderr, /OF_PLUGIN pass mine: it threw RangeError: pass mine declares no statistic 'nothing'/);
  });
  await inWorkspace(async (folder) => {
    const text = pluginText({ run: `async () => { throw new Error('later'); }` });
    const { code, stderr } = await runPlugin(folder, text, 'mine');
    assert.is(code, 1);
    assert.match(stderr, /OF_PLUGIN pass mine: it threw a promise, but passes are synchronous/);
  });
});

test("facts that cannot be kept or said are the plugin's fault, in one line", () =>
  inWorkspace(async (folder) => {
    const describe = 'describe: (all) => all.map(String)';
    const cases: [run: string, facts: string | null, complaint: RegExp][] = [
      ['({ fact }) => fact(1)', null, /RangeError: pass mine declares no facts/],
      [
        '({ fact }) => fact({ when: 1n })',
        `{ ${describe} }`,
        /RangeError: pass mine states a fact that JSON cannot hold/,
      ],
      ['({ fact }) => fact(new Map())', `{ ${describe} }`, /states a fact that JSON cannot hold/],
      ['({ fact }) => fact(1)', `{ describe: () => 'one' }`, /describe gave a string, but it gives an array of texts/],
      ['({ fact }) => fact(1)', `{ ${describe}, settles: () => [1] }`, /settles gave an array, but it gives/],
      ['({ fact }) => fact(1)', '{ describe: () => { throw new Error("no words"); } }', /pass mine: it threw no words/],
    ];
    for (const [run, facts, complaint] of cases) {
      const { code, stderr } = await runPlugin(folder, pluginText({ run, ...(facts ? { facts } : {}) }), 'mine');
      assert.is(code, 1, stderr);
      assert.match(stderr, complaint);
      assert.is(stderr.trimEnd().split('\n').length, 1, stderr);
      // A module is imported once: the next case needs a file of its own.
      rmSync(join(folder, 'plugin.mjs'));
      folder = join(folder, 'next');
      mkdirSync(folder);
    }
  }));

test('what a plugin remarks, counts and states is in the terminal and in the report', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'plugin.mjs');
    const plain = `{
      id: 'plain', summary: 'x', effect: 'exact', options: {}, statistics: { seen: 'nodes seen', none: 'never' },
      run({ passed, missed, count }) {
        count('seen', 7);
        for (const layer of [1, 2, 3]) passed('did it', layer);
        missed('cannot do that', 5);
        missed('the moon is full');
      },
    }`;
    const talking = `{
      id: 'talking', summary: 'x', effect: 'exact', options: {}, statistics: {},
      facts: { describe: (all) => ['said ' + all.map(({ word }) => word).join(' ')], settles: () => ['5'] },
      run({ fact }) { fact({ word: 'one' }); fact({ word: 'two' }); },
    }`;
    writeFileSync(path, `export const passes = [${plain}, ${talking}];`);
    const flags = ['--no-verify', '--plugin', path, '--report', join(folder, 'report.json'), '--pipeline'];
    const first = await runCli(TALES12, join(folder, 'out.onnx'), ...flags, 'plain');
    assert.is(first.code, 0, first.stderr);
    assert.match(first.stdout, /^plain: layers 1-3: did it\nplain: nodes seen: 7\nleft as they are:\n/);
    assert.match(first.stdout, /^ {2}layer 5: cannot do that\n {2}plain: the moon is full$/m);
    const { facts, steps, remarks } = JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8')) as Report;
    assert.equal(facts, {});
    assert.equal(steps[0]?.statistics, { seen: 7, none: 0 });
    assert.is(remarks.length, 5);
    const both = await runCli(TALES12, join(folder, 'both.onnx'), ...flags, 'plain,talking');
    assert.match(both.stdout, /^said one two$/m);
    assert.not.match(both.stdout, /layer 5/, 'a later fact settles the layer');
    assert.equal(JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8')).facts, {
      talking: [{ word: 'one' }, { word: 'two' }],
    });
  }));

test('a pass that breaks the graph is caught before anything is written', () =>
  inWorkspace(async (folder) => {
    const run = `({ graph }) => graph.addNode({ opType: 'Odd', domain: 'nobody.imports', inputs: [], outputs: ['odd'] })`;
    const { code, stderr } = await runPlugin(folder, pluginText({ run }), 'mine');
    assert.is(code, 1);
    assert.match(stderr, /OF_INVALID_GRAPH pass mine: .*'nobody\.imports' is not imported/);
    assert.not(existsSync(join(folder, 'out.onnx')));
  }));

/** Sigmoid becomes Tanh: another function. */
const LIAR = definePass({
  id: 'liar',
  summary: 'changes the function',
  effect: 'exact',
  options: {},
  statistics: {},
  run({ graph, rewriter }) {
    for (const node of [...graph.nodes()].filter((each) => each.op === 'Sigmoid')) {
      const made = graph.addNode({ opType: 'Tanh', inputs: node.inputs, outputs: ['tanh'] }, { before: node });
      const [from, to] = [node.output(0), made.output(0)];
      if (from && to) rewriter.replaceValue(from, to);
      rewriter.eraseIfDead(node);
    }
  },
});

test('a pass that calls itself exact and is not fails the algebra check; one that owns up is drift', () =>
  inWorkspace(async (folder) => {
    const request = { input: TALES12, output: join(folder, 'o.onnx'), pipeline: 'liar' };
    let thrown: unknown;
    await fuse({ ...request, passes: [LIAR] }).catch((error: unknown) => {
      thrown = error;
    });
    assert.ok(thrown instanceof Diagnostic && thrown.code === 'OF_CHECK_FAILED', String(thrown));
    assert.not(existsSync(request.output));
    const honest = await fuse({ ...request, passes: [{ ...LIAR, effect: 'changes-function' as const }] });
    assert.ok(honest.checks.algebra?.pass);
    assert.ok((honest.checks.drift?.kl ?? 0) > 0);
  }));

test.run();
