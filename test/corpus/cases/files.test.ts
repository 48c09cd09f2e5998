/** Cases: quantised models, files and folders. */
import { cpSync, existsSync, linkSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';
import { assertRefused, caseFile, fuseCase, fusedRuns, inspectCase, mustFuse, mustLoad } from './cases.js';

const test = suite('cases: int4, files and folders');
const SOON = ['--keep-last', '0'];
const int4 = (name: string) => caseFile('int4', `genai-llama-int4-${name}`, 'model.onnx');

test('genai-llama-int4-prepacked: weights in CUDA tiles are neither joined nor cut, with that reason', () =>
  inWorkspace(async (folder) => {
    const { code, stderr, report } = await fuseCase(folder, int4('prepacked'), '--remove-attention', '1-3', ...SOON);
    assert.is(code, 0, stderr);
    assert.equal(fusedRuns(report as NonNullable<typeof report>), []);
    assert.match(report?.left.map(({ reason }) => reason).join('\n') ?? '', /tiles of a CUDA kernel/);
    const [asked, ranks] = [['--remove-attention', '1-3', '--runs', '1-3'], join(folder, 'ranks')];
    assertRefused(
      await runCli(int4('prepacked'), join(folder, 'o.onnx'), ...asked, '--quiet'),
      /tiles of a CUDA kernel/,
    );
    assertRefused(await runCli('shard', int4('prepacked'), ranks, '--tp', '2', '--quiet'), /tiles of a CUDA kernel/);
    assert.not(existsSync(ranks));
  }));

test('genai-llama-int4-webgpu: a right result at accuracy level 4 passes, compared at level 0', () =>
  inWorkspace(async (folder) => {
    const { stdout, stderr } = await mustFuse(folder, int4('webgpu'), 1, '--remove-attention', '1-3', ...SOON);
    assert.not.match(stdout + stderr, /report/);
    const ranks = await runCli('shard', int4('webgpu'), join(folder, 'ranks'), '--tp', '2');
    assert.is(ranks.code, 0, ranks.stderr);
    assert.match(ranks.stdout, /compared at accuracy_level 0/);
  }));

test('genai-llama-int4-cuda: rounding in half precision is no fault of ranks', () =>
  inWorkspace(async (folder) => {
    const { code, stderr } = await runCli('shard', int4('cuda'), join(folder, 'out'), '--tp', '2', '--quiet');
    assert.is(code, 0, stderr);
  }));

test('(any int4) inspect: parameters and types of 4-bit layers are true', async () => {
  for (const [name, width, cacheHeads] of [
    ['prepacked', 128, 4],
    ['cuda', 128, 4],
    ['webgpu', 96, 2],
  ] as const) {
    const { model, layers } = await inspectCase(int4(name));
    for (const { ffn } of layers) assert.is(ffn.dtype, 'int4 (block 32)');
    // Four layers of 64 channels, 100 tokens; heads of 16; tables of 128 positions.
    const attention = 2 * 64 * 64 + 2 * 64 * 16 * cacheHeads;
    const expected = 2 * 100 * 64 + 4 * (attention + 3 * 64 * width + 2 * 64) + 64 + 2 * 128 * 8;
    assert.is(model.parameters, expected, name);
  }
});

test('files/ort-prepacked: the entries of onnxruntime do not survive a move of the data', () =>
  inWorkspace(async (folder) => {
    const input = caseFile('files', 'ort-prepacked', 'model.onnx');
    for (const flags of [['--pipeline', ''], [], ['--remove-attention', '2-4']]) {
      const { code, stderr, output } = await fuseCase(folder, input, ...flags);
      assert.is(code, 0, stderr);
      mustLoad(output);
      if (flags.length === 2 && flags[0] !== '--pipeline') continue;
      const same = await runCli('verify', input, output);
      assert.match(same.stdout, /worst relative error 0\.00e\+0/);
    }
  }));

test('files/ir3: initializers that are inputs', () =>
  inWorkspace(async (folder) => {
    const input = caseFile('files', 'ir3', 'model.onnx');
    await mustFuse(folder, input, 1, '--remove-attention', '1-2', ...SOON);
    const { code, stderr } = await runCli('shard', input, join(folder, 'ranks'), '--tp', '2', '--quiet');
    assert.is(code, 0, stderr);
  }));

for (const name of ['decode.onnx', 'prefill.onnx']) {
  test(`files/${name}: fixed shapes and a growing cache`, () =>
    inWorkspace(async (folder) => {
      const input = caseFile('files', name);
      const { output, report } = await mustFuse(folder, input, 1, '--remove-attention', '1-2', ...SOON);
      assert.is(report?.checks.skipped, null);
      const compared = await runCli('verify', input, output);
      assert.is(compared.code, 0, compared.stderr);
      assert.match(compared.stdout, /next token, \d+ positions of random tokens: KL [0-9.]+/);
    }));
}

test('files/no-lm-head: without logits KL is not measured, and that is said', () =>
  inWorkspace(async (folder) => {
    const input = caseFile('files', 'no-lm-head', 'model.onnx');
    const { code, stderr, stdout } = await runCli(
      input,
      join(folder, 'out.onnx'),
      '--remove-attention',
      '2-4',
      ...SOON,
    );
    assert.is(code, 0, stderr);
    assert.not(/KL 0\.00|top-1 agreement 100/.test(stdout), stdout);
    assert.match(stdout, /no logits: KL and top-1 agreement not measured/);
    const compared = await runCli('verify', input, join(folder, 'out.onnx'));
    assert.match(compared.stdout, /no logits: KL and top-1 agreement not measured/);
  }));

test('Hugging Face cache: header and data are links to blobs', () =>
  inWorkspace(async (folder) => {
    const source = caseFile('int4', 'genai-llama-int4-webgpu');
    const [blobs, snapshot] = [join(folder, 'blobs'), join(folder, 'snapshots', 'x')];
    for (const each of [blobs, snapshot]) mkdirSync(each, { recursive: true });
    for (const [file, blob] of [
      ['model.onnx', 'a'],
      ['model.onnx.data', 'b'],
    ] as const) {
      cpSync(join(source, file), join(blobs, blob));
      symlinkSync(join('..', '..', 'blobs', blob), join(snapshot, file));
    }
    await mustFuse(folder, join(snapshot, 'model.onnx'), 1, '--remove-attention', '1-3', ...SOON);
    const whole = await runCli(snapshot, join(folder, 'out'), '--remove-attention', '1-3', '--quiet');
    assert.is(whole.code, 0, whole.stderr);
    // A link that leaves the folder and the blobs is not followed.
    const outside = join(folder, 'elsewhere');
    mkdirSync(outside);
    linkSync(join(blobs, 'b'), join(outside, 'data'));
    const bad = join(folder, 'bad');
    mkdirSync(bad);
    cpSync(join(source, 'model.onnx'), join(bad, 'model.onnx'));
    symlinkSync(join('..', 'elsewhere', 'data'), join(bad, 'model.onnx.data'));
    const refused = await fuseCase(folder, join(bad, 'model.onnx'), '--remove-attention', '1-3');
    assertRefused(refused, /OF_EXTERNAL_ESCAPES.*is outside the model's folder/);
    assert.not.match(refused.stderr, /onnxruntime/);
  }));

/** A copy of a case's folder, so that nothing is ever written beside the cases. */
function copied(folder: string, ...path: string[]): string {
  const to = join(folder, 'in');
  cpSync(caseFile(...path), to, { recursive: true });
  return to;
}

test('transformersjs-external-data: transformers.js finds its data under its own names', () =>
  inWorkspace(async (folder) => {
    const input = join(copied(folder, 'folders', 'transformersjs-external-data', 'in'), 'tiny');
    for (const more of [[], ['--max-shard-size', '50KB']]) {
      const output = join(folder, `out${more.length}`);
      const { code, stderr } = await runCli(input, output, '--remove-attention', '2', '--quiet', ...more);
      assert.is(code, 0, stderr);
      assert.ok(existsSync(join(output, 'onnx', 'model.onnx_data')));
      assert.not(existsSync(join(output, 'onnx', 'model.onnx.data')));
      const config = JSON.parse(readFileSync(join(output, 'config.json'), 'utf8'));
      const chunks = config['transformers.js_config'].use_external_data_format;
      const said = typeof chunks === 'object' ? chunks['model.onnx'] : chunks;
      let count = 1;
      while (existsSync(join(output, 'onnx', `model.onnx_data_${count}`))) count++;
      assert.is(Number(said), count);
      if (more.length > 0) assert.ok(count > 1);
      mustLoad(join(output, 'onnx', 'model.onnx'));
    }
  }));

test('lora-adapter-optional: the adapter comes along for what is left, and that is said', () =>
  inWorkspace(async (folder) => {
    const input = copied(folder, 'folders', 'lora-adapter-optional');
    const output = join(folder, 'out');
    const { code, stdout, stderr } = await runCli(input, output, '--remove-attention', '2-3', ...SOON);
    assert.is(code, 0, stderr);
    assert.match(stdout, /rewrote adapter_weights\.onnx_adapter/);
    assert.match(stdout, /adapter_weights\.onnx_adapter: 4 of its parameters went with what was removed/);
    assert.ok(existsSync(join(output, 'adapter_weights.onnx_adapter')));
    // What is not copied is listed.
    assert.match(stdout, /not copied: cmd/);
  }));

test('genai-pipeline-epcontext: the binary of an EPContext node comes along, and what does not is listed', () =>
  inWorkspace(async (folder) => {
    const input = copied(folder, 'folders', 'genai-pipeline-epcontext');
    const output = join(folder, 'out');
    const { code, stdout, stderr } = await runCli(input, output, '--remove-attention', '2-3', ...SOON);
    assert.is(code, 0, stderr);
    for (const file of ['head_qnn.bin', 'head_ctx.onnx'])
      assert.equal(readFileSync(join(output, file)), readFileSync(join(input, file)), file);
    const made = readdirSync(output);
    for (const file of readdirSync(input))
      assert.ok(made.includes(file) || stdout.includes(`not copied: ${file}`), file);
  }));

test('(any) every command takes a folder', () =>
  inWorkspace(async (folder) => {
    const input = copied(folder, 'int4', 'genai-llama-int4-webgpu');
    const [plan, text] = [join(folder, 'plan.json'), caseFile('plans', 'text.txt')];
    const quick = ['--max-kl', '5', '--max-evaluations', '2', '--device', 'h100x8', '--quiet'];
    for (const argv of [
      ['inspect', input],
      ['print', input],
      ['verify', input, input],
      ['verify', input, input, '--data', text, '--generate', '0', '--no-timing'],
      ['golden', input, join(folder, 'x.golden'), '--accept'],
      ['bench', input, input, '--runtime', 'node', '--rounds', '1', '--prompt', '8', '--decode', '4', '--quiet'],
      ['plan', input, '-o', plan, '--data', text, ...quick],
      [input, join(folder, 'out'), '--plan', plan, '--quiet'],
      ['shard', input, join(folder, 'ranks'), '--tp', '2', '--quiet'],
    ]) {
      const { code, stderr } = await runCli(...argv);
      assert.is(code, 0, `${argv[0]}: ${stderr}`);
    }
  }));

test.run();
