/** Bad input: one clear line, the right exit code, no output file, the input untouched. */
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { openModelBytes, parseModel, saveModel } from '../../ir/index.js';
import { ROOT, TALES12 } from '../helpers/paths.js';
import { suite } from '../helpers/suite.js';
import { inWorkspace, runCli } from '../helpers/workspace.js';

const refusals = suite('refusals');

/** Runs a fusion that must be refused and says why it was. */
async function refused(folder: string, code: number, id: string, ...argv: string[]): Promise<string> {
  const before = readdirSync(folder).sort();
  const result = await runCli(...argv);
  assert.is(result.code, code, result.stderr);
  assert.is(result.stdout, '');
  const lines = result.stderr.trimEnd().split('\n');
  assert.is(lines.length, 1, result.stderr);
  assert.ok(lines[0]?.startsWith(`onnx-fuse: ${id} `), lines[0]);
  assert.equal(readdirSync(folder).sort(), before, 'nothing appears in the folder');
  return lines[0] ?? '';
}

async function withExternal(folder: string): Promise<string> {
  const path = join(folder, 'in.onnx');
  await saveModel((await import('../../ir/index.js')).openModel(TALES12), path, { external: true });
  assert.ok(existsSync(`${path}.data`));
  return path;
}

refusals('the word fuse may stand before a model, and what kept a run from being fused is said', () =>
  inWorkspace(async (folder) => {
    const plain = await runCli('fuse', TALES12, join(folder, 'out.onnx'), '--remove-attention', '3-6', '--no-verify');
    assert.is(plain.code, 0, plain.stderr);
    assert.match((await runCli('help', 'fuse')).stdout, /onnx-fuse in\.onnx out\.onnx/);
    const output = join(folder, 'short.onnx');
    const argv = [TALES12, output, '--remove-attention', '3-4', '--keep-last', '2', '--require-fusion'];
    const line = await refused(folder, 1, 'OF_NOTHING_FUSED', ...argv);
    assert.match(line, /layer [34]: .*keep-last/);
  }),
);

refusals('a rank of maps that is none, that saves nothing, or that nothing is fitted with', () =>
  inWorkspace(async (folder) => {
    const out = join(folder, 'out.onnx');
    const recover = [TALES12, out, '--remove-attention', '3', '--recover', '--data', join(ROOT, 'README.md')];
    const plan = ['plan', TALES12, '-o', join(folder, 'plan.json'), '--remove-attention', '3', '--device', 'h100x8'];
    const ask = (why: RegExp, ...argv: string[]) =>
      refused(folder, 2, 'OF_USAGE', ...argv).then((line) => assert.match(line, why));
    for (const rank of ['0', '-3', '2.5']) {
      await ask(/--map-rank: it is .*, expected a whole number from 1/, ...recover, '--map-rank', rank);
      await ask(/--map-rank: it is .*, expected a whole number from 1/, ...plan, '--map-rank', rank);
    }
    await ask(/--map-rank: .*many/, ...recover, '--map-rank', 'many');
    // The stream of the model has 128 channels: 64 is no smaller than the whole matrix.
    for (const rank of ['64', '128', '1000']) {
      await ask(/--map-rank: .*no smaller.*128 channels.*at most 63/, ...recover, '--map-rank', rank);
      await ask(/--map-rank: .*no smaller.*128 channels.*at most 63/, ...plan, '--map-rank', rank);
    }
    await ask(/--quantize-maps: .*low rank/, ...recover, '--map-rank', '8', '--quantize-maps', '4');
    await ask(/--map-rank: .*without --recover/, TALES12, out, '--remove-attention', '3', '--map-rank', '8');
    await ask(/--map-rank: .*no effect/, ...plan, '--no-recover', '--map-rank', '8');
  }),
);

refusals('a file that is not ONNX', () =>
  inWorkspace(async (folder) => {
    const input = join(folder, 'in.onnx');
    writeFileSync(input, 'hello, this is text and no model');
    await refused(folder, 1, 'OF_NOT_ONNX', input, join(folder, 'out.onnx'));
    writeFileSync(input, '');
    await refused(folder, 1, 'OF_NOT_ONNX', input, join(folder, 'out.onnx'));
  }),
);

refusals('a truncated file', () =>
  inWorkspace(async (folder) => {
    const input = join(folder, 'in.onnx');
    copyFileSync(TALES12, input);
    truncateSync(input, 3_000_000);
    await refused(folder, 1, 'OF_TRUNCATED', input, join(folder, 'out.onnx'));
  }),
);

refusals('external data that is missing, too short or outside the folder', () =>
  inWorkspace(async (folder) => {
    const input = await withExternal(folder);
    truncateSync(`${input}.data`, 1000);
    await refused(folder, 1, 'OF_EXTERNAL_SHORT', input, join(folder, 'out.onnx'));
    const bytes = readFileSync(input).toString('latin1');
    const moved = (name: string): void => writeFileSync(input, bytes.replaceAll('in.onnx.data', name), 'latin1');
    moved('no.such.data');
    await refused(folder, 1, 'OF_EXTERNAL_MISSING', input, join(folder, 'out.onnx'));
    moved('../onnx.data');
    await refused(folder, 1, 'OF_EXTERNAL_ESCAPES', input, join(folder, 'out.onnx'));
    moved('/tmp/onnx.da');
    await refused(folder, 1, 'OF_EXTERNAL_ESCAPES', input, join(folder, 'out.onnx'));
    symlinkSync('/etc/hostname', join(folder, 'symlinked.da'));
    moved('symlinked.da');
    await refused(folder, 1, 'OF_EXTERNAL_ESCAPES', input, join(folder, 'out.onnx'));
  }),
);

refusals('a cycle in the graph', () =>
  inWorkspace(async (folder) => {
    const text =
      '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { a = Add(x, b)  b = Neg(a)  y = Neg(b) }';
    const input = join(folder, 'in.onnx');
    // The text parser refuses a cycle too, so one is tied in the bytes: the Add reads what it feeds.
    assert.throws(() => parseModel(text), /OF_/);
    const sound = parseModel(text.replace('Add(x, b)', 'Add(x, x)'));
    await saveModel(sound, input, {});
    const bytes = readFileSync(input);
    const at = bytes.indexOf(Buffer.from([0x0a, 1, 0x78, 0x0a, 1, 0x78]));
    assert.ok(at > 0);
    bytes[at + 5] = 'b'.charCodeAt(0);
    writeFileSync(input, bytes);
    assert.throws(() => openModelBytes(bytes, folder), /OF_CYCLE/);
    await refused(folder, 1, 'OF_CYCLE', input, join(folder, 'out.onnx'));
  }),
);

refusals('an unknown layer number', () =>
  inWorkspace(async (folder) => {
    const line = await refused(
      folder,
      2,
      'OF_NO_SUCH_LAYER',
      TALES12,
      join(folder, 'out.onnx'),
      '--remove-attention',
      '5,99',
    );
    assert.match(line, /layer 99: .*0 to 11/);
    await refused(folder, 2, 'OF_NO_SUCH_LAYER', TALES12, join(folder, 'out.onnx'), '--runs', '40-41');
  }),
);

refusals('a run whose layers keep their attention', () =>
  inWorkspace(async (folder) => {
    await refused(folder, 1, 'OF_CANNOT_FUSE', TALES12, join(folder, 'out.onnx'), '--runs', '3-5');
  }),
);

refusals('an output that is the input or its data', () =>
  inWorkspace(async (folder) => {
    const input = await withExternal(folder);
    const before = [readFileSync(input), readFileSync(`${input}.data`)];
    await refused(folder, 2, 'OF_OUTPUT_IS_INPUT', input, input, '--remove-attention', '3-6');
    await refused(folder, 2, 'OF_OUTPUT_IS_INPUT', input, `${input}.data`, '--remove-attention', '3-6');
    linkSync(input, join(folder, 'same.onnx'));
    await refused(folder, 2, 'OF_OUTPUT_IS_INPUT', input, join(folder, 'same.onnx'), '--remove-attention', '3-6');
    assert.equal([readFileSync(input), readFileSync(`${input}.data`)], before);
  }),
);

refusals('wrong usage: no output, an unknown flag, a bad layer list, a pass that does not exist', () =>
  inWorkspace(async (folder) => {
    const output = join(folder, 'out.onnx');
    await refused(folder, 2, 'OF_USAGE', TALES12);
    await refused(folder, 2, 'OF_USAGE', TALES12, output, '--no-such-flag');
    await refused(folder, 2, 'OF_USAGE', TALES12, output, '--remove-attention', '4-');
    await refused(folder, 2, 'OF_USAGE', TALES12, output, '--remove-attention', '9-4');
    await refused(folder, 2, 'OF_USAGE', TALES12, output, '--pipeline', 'no-such-pass');
    await refused(folder, 2, 'OF_USAGE', TALES12, output, '--keep-last', '-1');
    await refused(folder, 2, 'OF_NO_SUCH_FILE', join(folder, 'absent.onnx'), output);
    await refused(folder, 2, 'OF_USAGE', TALES12, join(folder, 'no', 'such', 'folder', 'out.onnx'), '--no-verify');
  }),
);

refusals('what is meant by a word that there is not: a command, a flag, a value, a pass, an option of a pass', () =>
  inWorkspace(async (folder) => {
    const output = join(folder, 'out.onnx');
    for (const [meant, ...argv] of [
      [/ 'insepct' is neither a command nor a file; did you mean onnx-fuse inspect\?/, 'insepct', TALES12],
      [/ --max-kll: .*; did you mean --max-kl\?/, 'plan', TALES12, '--max-kll', '1'],
      [/ --no-verfy: .*; did you mean --no-verify\?/, TALES12, output, '--no-verfy'],
      [
        / --fuse: expected auto, always or never, found 'alwys'; did you mean always\?/,
        'plan',
        TALES12,
        '--fuse=alwys',
      ],
      [/ no pass is called 'concat-fnn'; did you mean 'concat-ffn'\?/, TALES12, output, '--pipeline', 'concat-fnn'],
      [
        / it has no option 'layer'; did you mean 'layers'\?/,
        ...[TALES12, output, '--pipeline', 'remove-attention{layer=1}'],
      ],
    ] as const) {
      assert.match(await refused(folder, 2, 'OF_USAGE', ...argv), meant);
    }
    assert.match(await refused(folder, 2, 'OF_NO_SUCH_FILE', 'xyzzy', output), /xyzzy/);
  }),
);

refusals('a value that is no number names the flag, what was found and what was expected', () =>
  inWorkspace(async (folder) => {
    const output = join(folder, 'out.onnx');
    for (const [flag, ...argv] of [
      ['--keep-last', TALES12, output],
      ['--tokens', TALES12, output],
      ['--max-kl', 'plan', TALES12],
      ['--tolerance', 'verify', TALES12, TALES12],
      ['--tp', 'shard', TALES12, join(folder, 'ranks')],
      ['--rounds', 'bench', TALES12],
    ] as const) {
      for (const value of ['many', 'NaN', '', '1,5', 'Infinity']) {
        const line = await refused(folder, 2, 'OF_USAGE', ...argv, flag, value);
        assert.is(line.includes(`${flag}: expected a number, found '${value}'`), true, line);
      }
    }
    assert.match(
      await refused(folder, 2, 'OF_USAGE', TALES12, output, '--keep-last'),
      /--keep-last: its value is missing/,
    );
    assert.match(await refused(folder, 2, 'OF_USAGE', 'verify', TALES12), /<b>: it is missing: the model to judge/);
  }),
);

refusals('an output that looks like a file for a folder, or like a folder for a file', () =>
  inWorkspace(async (folder) => {
    const [input, model] = [join(folder, 'in'), join(folder, 'in', 'model.onnx')];
    mkdirSync(input);
    copyFileSync(TALES12, model);
    const words = ['--remove-attention', '3', '--no-verify'];
    const file = await refused(folder, 2, 'OF_USAGE', input, join(folder, 'out.onnx'), ...words);
    assert.match(
      file,
      /out\.onnx: the input is a folder, so the output is one, and this is the name of a file; give a folder/,
    );
    const slash = await refused(folder, 2, 'OF_USAGE', model, `${join(folder, 'out')}/`, ...words);
    assert.match(
      slash,
      /the input is a file, so the output is one, and this is the name of a folder; name the file, too/,
    );
    // Where the folder is more than the file, that is said.
    writeFileSync(join(input, 'config.json'), '{}');
    const { code, stderr } = await runCli(model, join(folder, 'out'), ...words);
    assert.is(code, 0, stderr);
    assert.match(stderr, /the input is a file, so the output is one: .*out; a folder .* with config\.json/);
  }),
);

refusals('a limit that is a percentage, and text that judges what was fitted on it', () =>
  inWorkspace(async (folder) => {
    const data = join(folder, 'ids.jsonl');
    writeFileSync(data, `${JSON.stringify(Array.from({ length: 64 }, (_, i) => i))}\n`.repeat(4));
    for (const [flag, value, expected] of [
      [
        '--max-ppl-increase',
        '5',
        /--max-ppl-increase: it is 5, expected a share from 0 to 1; give 0\.05, which is 5 %/,
      ],
      ['--min-top1', '95', /--min-top1: it is 95, expected a share from 0 to 1/],
      ['--max-kl', '-1', /--max-kl: it is -1, expected no less than 0/],
    ] as const) {
      const plan = ['plan', TALES12, '-o', join(folder, 'plan.json'), '--data', data, `${flag}=${value}`];
      assert.match(await refused(folder, 2, 'OF_USAGE', ...plan), expected);
      assert.match(
        await refused(folder, 2, 'OF_USAGE', 'verify', TALES12, TALES12, '--data', data, `${flag}=${value}`),
        expected,
      );
    }
    const words = [TALES12, join(folder, 'out.onnx'), '--remove-attention', '3', '--recover', '--data', data];
    const same = await refused(folder, 2, 'OF_TOKEN_DATA', ...words, '--held-out', data);
    assert.match(same, /all of it is in the text to fit and search on as well, .*--held-out/);
  }),
);

refusals.run();
