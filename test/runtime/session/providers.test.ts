/** Providers: where nodes ran, why one does not start, and that a model decodes what it says in a prefill. */
import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { Diagnostic } from '../../../ir/diagnostic.js';
import { referenceBytes } from '../../../ir/disk/model.js';
import { openModel } from '../../../ir/index.js';
import { decodeBatch, measureDecode } from '../../../runtime/quality/decode-agreement.js';
import { checkPlacement, readPlacement } from '../../../runtime/run/placement.js';
import { readSharedLibrary } from '../../../runtime/session/elf.js';
import { loadRuntime } from '../../../runtime/session/ort.js';
import { absentLibraries, type Machine, whyNotStarted } from '../../../runtime/session/provider-libraries.js';
import { type Session, withSession } from '../../../runtime/session/session.js';
import type { TensorMap } from '../../../runtime/session/tensor.js';
import { readSignature } from '../../../runtime/signature/signature.js';
import { BIN, TALES12 } from '../../helpers/paths.js';
import { skip, suite } from '../../helpers/suite.js';
import { tinyDecoder } from '../../helpers/tiny-decoder.js';
import { inWorkspace } from '../../helpers/workspace.js';

const test = suite('runtime: providers');

const thrown = (run: () => unknown): Diagnostic => {
  try {
    run();
  } catch (error) {
    if (error instanceof Diagnostic) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
};

const event = (op: string, index: number, where: string, parameterBytes = 0) => ({
  cat: 'Node',
  name: `n${index}_kernel_time`,
  args: { op_name: op, node_index: String(index), provider: where, parameter_size: String(parameterBytes) },
});
const CPU = 'CPUExecutionProvider';
const GPU = 'WebGpuExecutionProvider';

test('a node counts once, work on the CPU is told from arithmetic on shapes, and refused', () => {
  const events = [
    { cat: 'Session', name: 'model_run', args: {} },
    ...[event('MatMul', 1, GPU), event('MatMul', 1, GPU), event('Add', 2, GPU), event('Shape', 3, CPU)],
  ];
  const fine = readPlacement(JSON.stringify(events), 'webgpu', 'm.onnx');
  assert.equal(fine, { provider: 'webgpu', onProvider: 2, computedOnCpu: {}, smallOnCpu: { Shape: 1 } });
  checkPlacement(fine, 'm.onnx');

  // A product of matrices, and what is no product by its name but reads weights.
  for (const odd of [event('MatMulNBits', 4, CPU), event('Custom', 4, CPU, 1 << 20)]) {
    const fallen = readPlacement(JSON.stringify([...events, odd]), 'webgpu', 'm.onnx');
    const { code, message } = thrown(() => checkPlacement(fallen, 'm.onnx'));
    assert.is(code, 'OF_PROVIDER_FALLBACK');
    assert.match(message, new RegExp(`webgpu.*m\\.onnx instead: ${odd.args.op_name} 1`));
  }
  const idle = readPlacement(JSON.stringify([event('Shape', 3, CPU)]), 'webgpu', 'm.onnx');
  assert.match(thrown(() => checkPlacement(idle, 'm.onnx')).message, /all of it \(Shape 1\)/);
});

test('what is no profile is refused', () => {
  for (const text of ['', '{}', '[]', '[null, 3, {"cat":"Node"}]', '[{"cat":"Node","args":{"provider":1}}]']) {
    assert.is(thrown(() => readPlacement(text, 'cuda', 'm.onnx')).code, 'OF_RUNTIME', text);
  }
});

const machine = (known: string[] | null, libraryPath = ''): Machine => ({
  ...{ platform: 'linux', arch: 'x64', libraryPath },
  known: () => known && new Set(known),
});

test('cuda names the files that are not beside onnxruntime, and says so of machines that cannot have them', () =>
  inWorkspace((folder) => {
    const lack = absentLibraries('cuda', folder, machine([]));
    assert.match(
      lack?.why ?? '',
      /libonnxruntime_providers_cuda\.so and libonnxruntime_providers_shared\.so are not in/,
    );
    assert.match(lack?.remedy ?? '', /ONNXRUNTIME_NODE_INSTALL=cuda12/);
    const mac = absentLibraries('cuda', folder, { ...machine([]), platform: 'darwin', arch: 'arm64' });
    assert.match(mac?.why ?? '', /linux\/x64 only, this is darwin\/arm64/);
    for (const name of ['cuda', 'shared']) writeFileSync(join(folder, `libonnxruntime_providers_${name}.so`), '');
    assert.is(absentLibraries('cuda', folder, machine([])), null);
    assert.is(absentLibraries('webgpu', folder, machine([])), null);
  }));

/** An ELF file with nothing but a dynamic section: what the CUDA provider asks for. */
function sharedLibrary(needed: readonly string[], runpath: string): Buffer {
  const names = [...needed, runpath];
  const starts = names.map((_, i) => 1 + names.slice(0, i).join('\0').length + (i > 0 ? 1 : 0));
  const strings = Buffer.from(`\0${names.join('\0')}\0`);
  const [headers, dynamicAt] = [64, 64 + 2 * 56];
  const entries = [...needed.map((_, i) => [1, starts[i]]), [29, starts.at(-1)], [5, 0], [10, strings.length], [0, 0]];
  const stringsAt = dynamicAt + 16 * entries.length;
  const bytes = Buffer.alloc(stringsAt + strings.length);
  bytes.write('\x7fELF\x02\x01\x01', 0, 'latin1');
  bytes.writeBigUInt64LE(BigInt(headers), 32);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(2, 56);
  for (const [i, [type, offset, size]] of [
    [1, 0, bytes.length],
    [2, dynamicAt, 16 * entries.length],
  ].entries() as IterableIterator<[number, [number, number, number]]>) {
    const at = headers + 56 * i;
    bytes.writeUInt32LE(type, at);
    for (const field of [8, 16]) bytes.writeBigUInt64LE(BigInt(offset), at + field);
    bytes.writeBigUInt64LE(BigInt(size), at + 32);
  }
  for (const [i, [tag, value]] of entries.entries()) {
    bytes.writeBigUInt64LE(BigInt(tag as number), dynamicAt + 16 * i);
    bytes.writeBigUInt64LE(BigInt(tag === 5 ? stringsAt : (value as number)), dynamicAt + 16 * i + 8);
  }
  strings.copy(bytes, stringsAt);
  return bytes;
}

const NEEDED = ['libcublas.so.13', 'libcudart.so.13', 'libcuda.so.1', 'libc.so.6'];

test('what a shared library needs is read from it; damage in it gives no reason, and never another error', () =>
  inWorkspace((folder) => {
    const path = join(folder, 'libonnxruntime_providers_cuda.so');
    const whole = sharedLibrary(NEEDED, '$ORIGIN/lib:/opt');
    writeFileSync(path, whole);
    assert.equal(readSharedLibrary(path), { needed: NEEDED, searched: ['$ORIGIN/lib', '/opt'] });

    const lack = whyNotStarted('cuda', folder, 'it failed', machine(['libc.so.6']));
    assert.is(
      lack?.why,
      'no NVIDIA driver (libcuda.so.1); the loader finds no libcublas.so.13, libcudart.so.13, libcudnn.so.9',
    );
    assert.match(
      lack?.remedy ?? '',
      /install the NVIDIA driver and CUDA 13 and cuDNN 9, .*LD_LIBRARY_PATH; or use cpu/,
    );
    // A folder that is searched has one of them.
    writeFileSync(join(folder, 'libcublas.so.13'), '');
    const less = whyNotStarted('cuda', folder, 'it failed', machine(['libc.so.6', 'libcuda.so.1'], folder));
    assert.is(less?.why, 'the loader finds no libcudart.so.13, libcudnn.so.9');
    assert.is(whyNotStarted('cuda', folder, 'it failed', machine([...NEEDED, 'libcudnn.so.9'])), null);
    assert.is(whyNotStarted('cuda', folder, 'it failed', machine(null)), null);

    for (let length = 0; length < whole.length; length += 7) {
      writeFileSync(path, whole.subarray(0, length));
      const found = whyNotStarted('cuda', folder, 'it failed', machine([...NEEDED, 'libcudnn.so.9']));
      assert.ok(found === null || found.why.length > 0);
    }
    for (let at = 0; at < whole.length; at += 3) {
      const bad = Buffer.from(whole);
      bad.fill(0xff, at, Math.min(at + 8, bad.length));
      writeFileSync(path, bad);
      const found = whyNotStarted('cuda', folder, 'it failed', machine([...NEEDED, 'libcudnn.so.9']));
      assert.ok(found === null || found.why.length > 0);
    }
  }));

test("onnxruntime's own library is read as the linker's tools read it", async () => {
  const { libraryFolder } = await loadRuntime();
  const path = libraryFolder && join(libraryFolder, 'libonnxruntime.so.1');
  if (process.platform !== 'linux' || !path || !existsSync(path)) {
    skip(`there is no ${path} on ${process.platform}`);
  }
  assert.ok(readSharedLibrary(path)?.needed.includes('libc.so.6'));
  assert.is(readSharedLibrary(TALES12), null);
});

test('without its CUDA provider, verify and bench end with one line that names what is missing', async () => {
  const { libraryFolder } = await loadRuntime();
  const hasCuda = libraryFolder !== null && existsSync(join(libraryFolder, 'libonnxruntime_providers_cuda.so'));
  if (hasCuda) skip('onnxruntime has its CUDA provider here');
  for (const command of [
    ['verify', TALES12, TALES12],
    ['bench', TALES12],
  ]) {
    const { status, stderr } = spawnSync(process.execPath, [BIN, ...command, '--provider', 'cuda', '--quiet']);
    assert.is(status, 1);
    assert.match(String(stderr), /^onnx-fuse: OF_NO_PROVIDER provider 'cuda': it is not available: [^\n]*; [^\n]*\n$/);
  }
});

const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';

test('on webgpu a model computes what it computes on the CPU, its nodes run there, and its caches stay there', () =>
  inWorkspace((folder) => {
    if (!existsSync(SWIFTSHADER)) skip(`there is no ${SWIFTSHADER}`);
    const vulkan = {
      LD_LIBRARY_PATH: '/usr/lib/chromium',
      VK_ICD_FILENAMES: SWIFTSHADER,
      VK_DRIVER_FILES: SWIFTSHADER,
    };
    const path = join(folder, 'model.onnx');
    writeFileSync(path, referenceBytes(tinyDecoder(), folder));
    // In a process of its own: the loader reads its path once.
    const script = `import { openModel } from ${JSON.stringify(new URL('../../../ir/index.js', import.meta.url))};
      const at = ${JSON.stringify(new URL('../../../runtime/index.js', import.meta.url))};
      const { measurePlacement, openSession, readSignature } = await import(at);
      const { makeFeeds } = await import(new URL('./feeds.js', at));
      const [path] = process.argv.slice(1);
      const model = openModel(path);
      const signature = readSignature(model);
      const caches = signature.caches.map(({ output }) => output);
      const run = async (provider, onGpu) => {
        const session = await openSession(path, { provider, ...onGpu });
        const first = await session.run(makeFeeds(signature, { tokenIds: [[1, 2, 3]] }).tensors);
        const feeds = makeFeeds(signature, { tokenIds: [[4]], past: first, pastLength: 3 }).tensors;
        const second = await session.run(feeds);
        const bytes = caches.map((name) => first.get(name).data.length);
        return { bytes, dims: second.get(caches[0]).dims, logits: [...second.get(signature.logits).data] };
      };
      const answers = [await run('cpu'), await run('webgpu', { onGpu: caches })];
      console.log(JSON.stringify({ answers, placement: await measurePlacement(path, model, { provider: 'webgpu' }) }));
      process.exit(0);`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script, path], {
      encoding: 'utf8',
      env: { ...process.env, ...vulkan },
    });
    assert.ok(stdout.startsWith('{'), stderr);
    const { answers, placement } = JSON.parse(stdout);
    const [onCpu, onGpu] = answers;
    assert.ok(
      onCpu.bytes.every((length: number) => length > 0),
      'the CPU gives caches back',
    );
    assert.equal(onGpu.bytes, [0, 0], 'bytes of caches that came back from the GPU');
    assert.equal(onGpu.dims, onCpu.dims);
    const far = Math.max(...onCpu.logits.map((value: number, i: number) => Math.abs(value - onGpu.logits[i])));
    const largest = Math.max(...onCpu.logits.map(Math.abs));
    assert.ok(far < 1e-5 * largest, `${far} of ${largest}`);
    assert.ok(placement.onProvider > 5 && Object.keys(placement.computedOnCpu).length === 0, JSON.stringify(placement));
  }));

const TEXT = [...Buffer.from('Once upon a time there was a girl.')];

test('decoding through the KV cache agrees with a prefill, and a cache that is spoilt is noticed', async () => {
  const model = openModel(TALES12);
  const signature = readSignature(model);
  const batch = decodeBatch([TEXT], signature);
  assert.ok(batch);
  await withSession(TALES12, { optimization: 'disabled' }, async (session) => {
    const good = await measureDecode(session, model, signature, batch);
    assert.ok(!('skipped' in good) && good.agrees && good.relative > 0 && good.relative < 2e-3, JSON.stringify(good));
    assert.is(good.tokens, TEXT.length);
    assert.is(good.top1, 1);
    const spoilt: Pick<Session, 'run'> = {
      run: (feeds: TensorMap, fetch?: readonly string[]) => {
        const wrong = new Map(feeds);
        const [name] = [...feeds.keys()].filter((key) => /past.*0.*key/.test(key));
        const cache = feeds.get(name as string);
        if (cache && cache.data.length > 0)
          wrong.set(name as string, { ...cache, data: cache.data.slice().fill(0 as never) });
        return session.run(wrong, fetch);
      },
    };
    const bad = await measureDecode(spoilt, model, signature, batch);
    assert.ok(!('skipped' in bad) && !bad.agrees && bad.relative > 2e-3, JSON.stringify(bad));
  });
});

test.run();
