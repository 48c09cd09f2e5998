/** Cases: quantised models, files and folders. */
import { cpSync, existsSync, linkSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { openSession } from '../../../runtime/index.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';
import { assertRefused, caseFile, fuseCase, fusedRuns, inspectCase, mustFuse } from './cases.js';

const test = suite('cases: int4, files and folders');
const SOON = ['--keep-last', '0'];
const int4 = (name: string) => caseFile('int4', `genai-llama-int4-${name}`, 'model.onnx');

async function loads(model: string): Promise<void> {
  await (await openSession(model)).release();
}

test('weights in CUDA tiles are left as they are, with that reason', () =>
  inWorkspace(async (folder) => {
    const { code, stderr, report } = await fuseCase(folder, int4('prepacked'), '--remove-attention', '1-3', ...SOON);
    assert.is(code, 0, stderr);
    assert.equal(fusedRuns(report as NonNullable<typeof report>), []);
    assert.match(report?.left.map(({ reason }) => reason).join('\n') ?? '', /tiles of a CUDA kernel/);
  }));

test('a right result at accuracy level 4 passes', () =>
  inWorkspace(
    async (folder) => void (await mustFuse(folder, int4('webgpu'), 1, '--remove-attention', '1-3', ...SOON)),
  ));

test('rounding in half precision is no fault of ranks', () =>
  inWorkspace(async (folder) => {
    const { code, stderr } = await runCli('shard', int4('cuda'), join(folder, 'out'), '--tp', '2', '--quiet');
    assert.is(code, 0, stderr);
  }));

test('parameters and types of 4-bit layers are true', async () => {
  const { model, layers } = await inspectCase(int4('webgpu'));
  assert.match(layers[0]?.ffn.dtype ?? '', /^int4 \(block \d+\)$/);
  // 4 bits and a scale for each block: far more parameters than bytes.
  assert.ok(model.parameters > 1.2 * model.weightBytes, `${model.parameters} of ${model.weightBytes} bytes`);
});

test('entries that onnxruntime keeps for prepacked weights do not survive a move of the data', () =>
  inWorkspace(async (folder) => {
    const input = caseFile('files', 'ort-prepacked', 'model.onnx');
    for (const flags of [['--pipeline', ''], [], ['--remove-attention', '2-4']]) {
      const { code, stderr, output } = await fuseCase(folder, input, ...flags);
      if (code === 0) await loads(output);
      else assertRefused({ code, stderr, stdout: '' }, /prepacked/);
    }
  }));

test('initializers that are inputs, as in IR 3', () =>
  inWorkspace(async (folder) => {
    const input = caseFile('files', 'ir3', 'model.onnx');
    await mustFuse(folder, input, 1, '--remove-attention', '1-2', ...SOON);
    const { code, stderr } = await runCli('shard', input, join(folder, 'ranks'), '--tp', '2', '--quiet');
    assert.is(code, 0, stderr);
  }));

for (const name of ['decode.onnx', 'prefill.onnx']) {
  test(`fixed shapes and a growing cache: ${name}`, () =>
    inWorkspace(async (folder) => {
      const { code, stderr, report } = await fuseCase(
        folder,
        caseFile('files', name),
        '--remove-attention',
        '1-2',
        ...SOON,
      );
      assert.is(code, 0, stderr);
      assert.is(report?.checks.skipped, null);
      assert.ok(report?.checks.algebra?.pass);
    }));
}

test('no logits: said, not measured', () =>
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
    assert.not(/KL 0\.00/.test(stdout), stdout);
    assert.match(stdout, /no logits|no next-token scores/);
  }));

test('a Hugging Face cache: header and data are links to blobs', () =>
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
    const { code, stderr } = await fuseCase(folder, join(snapshot, 'model.onnx'), '--remove-attention', '1-3', ...SOON);
    assert.is(code, 0, stderr);
    // A link that leaves the folder and the blobs is not followed.
    const outside = join(folder, 'elsewhere');
    mkdirSync(outside);
    linkSync(join(blobs, 'b'), join(outside, 'data'));
    const bad = join(folder, 'bad');
    mkdirSync(bad);
    cpSync(join(source, 'model.onnx'), join(bad, 'model.onnx'));
    symlinkSync(join('..', 'elsewhere', 'data'), join(bad, 'model.onnx.data'));
    assertRefused(await fuseCase(folder, join(bad, 'model.onnx'), '--remove-attention', '1-3'), /OF_EXTERNAL_ESCAPES/);
  }));

/** A copy of a case's folder, so that nothing is ever written beside the cases. */
function copied(folder: string, ...path: string[]): string {
  const to = join(folder, 'in');
  cpSync(caseFile(...path), to, { recursive: true });
  return to;
}

test('transformers.js finds its data under its own names', () =>
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
    }
  }));

test('an adapter is carried or refused, and that is said', () =>
  inWorkspace(async (folder) => {
    const input = copied(folder, 'folders', 'lora-adapter-optional');
    const output = join(folder, 'out');
    const { code, stdout, stderr } = await runCli(input, output, '--remove-attention', '2-3', ...SOON);
    assert.match(stdout + stderr, /adapter/);
    if (code !== 0) assert.not(existsSync(output));
  }));

test('the binary of an EPContext node comes along', () =>
  inWorkspace(async (folder) => {
    const input = copied(folder, 'folders', 'genai-pipeline-epcontext');
    const output = join(folder, 'out');
    const { code, stderr } = await runCli(input, output, '--remove-attention', '2-3', ...SOON, '--quiet');
    assert.is(code, 0, stderr);
    for (const file of ['head_qnn.bin', 'head_ctx.onnx']) assert.ok(existsSync(join(output, file)), file);
  }));

test('every command takes a folder', () =>
  inWorkspace(async (folder) => {
    const input = copied(folder, 'int4', 'genai-llama-int4-webgpu');
    for (const argv of [
      ['inspect', input],
      ['print', input],
      ['verify', input, input],
      ['golden', input, join(folder, 'x.golden'), '--accept'],
    ]) {
      const { code, stderr } = await runCli(...argv);
      assert.is(code, 0, `${argv[0]}: ${stderr}`);
    }
  }));

test.run();
