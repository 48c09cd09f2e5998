/** Ranks as folders of segments, for stock onnxruntime: the simulator runs the very files. */
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type ShardRequest, shard } from '../../../api/index.js';
import { readRanks } from '../../../api/shard/ranks-file.js';
import { allInitializers, Diagnostic, openModel } from '../../../ir/index.js';
import { ROOT, TALES12 } from '../../helpers/paths.js';
import { writeGenaiFolder, writeSmallDecoder } from '../../helpers/small-decoder.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('cli: shard into segments');
const PLAIN = { style: 'external', lmHead: 'gather', refuse: false, verify: true, force: false } as const;

function cut(folder: string, more: Partial<ShardRequest> = {}) {
  return shard({ input: TALES12, output: join(folder, 'out'), ranks: 2, ...PLAIN, ...more });
}

function inFolder(name: string, work: (folder: string) => void | Promise<void>): void {
  test(name, () => inWorkspace(work));
}

inFolder('a rank is a folder of segments over one file of weights', async (folder) => {
  const report = await cut(folder, { verify: false });
  const out = join(folder, 'out');
  assert.equal(readdirSync(out).sort(), ['rank_0', 'rank_1', 'ranks.json', 'run_ranks.py']);
  const names = Array.from({ length: 25 }, (_, k) => `segment_${String(k).padStart(3, '0')}.onnx`);
  assert.equal(readdirSync(join(out, 'rank_1')).sort(), [...names, 'weights.onnx.data']);
  const { chain, rankFiles, onnx_fuse } = readRanks(out);
  const written = readdirSync(out, { recursive: true, encoding: 'utf8' }).filter((name) => /\./.test(name));
  assert.equal([...onnx_fuse.files].sort(), written.sort());
  assert.equal(rankFiles[0]?.data, ['rank_0/weights.onnx.data']);
  assert.is(chain?.text, 'bytes');
  const meets = chain?.segments.map((segment) => segment.meets.map(({ kind }) => kind).join());
  assert.equal(meets, [...new Array(24).fill('all-reduce'), 'all-gather', '']);
  assert.is(report.token.allReduces, 24);
  // The weights are in the one file, and nobody runs collectives inside of a segment.
  for (const name of names) {
    const model = openModel(join(out, 'rank_0', name));
    assert.not([...model.graph.nodes()].some(({ opType }) => opType.startsWith('All')));
    for (const { weight, storage } of allInitializers(model)) {
      if ((weight?.byteLength ?? 0) > 1024) assert.is(storage, 'external', name);
    }
  }
});

inFolder('the files of four ranks together compute the original', async (folder) => {
  const input = writeSmallDecoder(folder, 'decomposed');
  const { check } = await cut(folder, { input, ranks: 4 });
  assert.ok(check && check.maxRelative <= check.tolerance && check.maxRelative > 0);
  assert.is((await runCli('verify', input, join(folder, 'out'), '--tolerance', '1e-5')).code, 0);
});

inFolder('weights of another rank are found out, a segment that is absent is named', async (folder) => {
  const input = writeSmallDecoder(folder, 'decomposed');
  await cut(folder, { input, verify: false });
  const out = join(folder, 'out');
  cpSync(join(out, 'rank_0/weights.onnx.data'), join(out, 'rank_1/weights.onnx.data'));
  assert.is((await runCli('verify', input, out, '--tolerance', '1e-5')).code, 1);
  rmSync(join(out, 'rank_1/segment_003.onnx'));
  const { code, stderr } = await runCli('verify', input, out);
  assert.is(code, 2);
  assert.match(stderr, /OF_NO_SUCH_FILE.*segment_003\.onnx/);
});

inFolder('ranks are judged on text like any model', async (folder) => {
  await cut(folder, { verify: false });
  const text = join(folder, 'text.txt');
  writeFileSync(text, 'Once upon a time there was a little dog. He liked to play in the garden with a red ball.');
  const asked = ['--data', text, '--length', '32', '--generate', '4', '--max-kl', '0.001', '--json', '--quiet'];
  const { code, stdout, stderr } = await runCli('verify', TALES12, join(folder, 'out'), ...asked);
  assert.is(code, 0, stderr);
  const { text: found, continuations } = JSON.parse(stdout);
  assert.ok(found.quality.kl < 1e-4 && found.quality.positions > 60, JSON.stringify(found.quality));
  assert.ok(found.decode.fused.agrees);
  assert.equal(continuations[0].ids.fused, continuations[0].ids.original);
});

inFolder('same input and options, same bytes', async (folder) => {
  const input = writeSmallDecoder(folder);
  const [a, b] = [join(folder, 'a'), join(folder, 'b')];
  for (const output of [a, b]) await cut(folder, { input, output, verify: false });
  for (const file of readRanks(a).onnx_fuse.files) {
    assert.ok(readFileSync(join(a, file)).equals(readFileSync(join(b, file))), file);
  }
});

inFolder('of a folder what lies around the model comes along', async (folder) => {
  const input = join(folder, 'model');
  writeGenaiFolder(input);
  writeFileSync(join(input, 'tokenizer.json'), '{}');
  writeFileSync(join(input, 'generation_config.json'), '{"eos_token_id": [7, 9], "bos_token_id": 7}');
  writeFileSync(join(input, 'LICENSE'), 'mine');
  await cut(folder, { input });
  const out = join(folder, 'out');
  const { chain } = readRanks(out);
  assert.is(chain?.text, 'tokenizer.json');
  assert.equal(chain?.ends, [9]);
  assert.is(readFileSync(join(out, 'LICENSE'), 'utf8'), 'mine');
  // It names the one file of a whole model.
  assert.not(existsSync(join(out, 'genai_config.json')));
  // GroupQueryAttention writes behind the past where there is room.
  assert.ok(chain?.caches.every(({ in_place, dims }) => in_place && dims[1] === 1));
  // A run over it again replaces what is ours.
  await cut(folder, { input, verify: false });
});

inFolder('what ranks.json says of segments is not believed', async (folder) => {
  const input = writeSmallDecoder(folder);
  await cut(folder, { input, verify: false });
  const out = join(folder, 'out');
  const path = join(out, 'ranks.json');
  const good = JSON.parse(readFileSync(path, 'utf8'));
  const [first, ...others] = good.chain.segments;
  const broken: readonly [string, unknown][] = [
    ['chain', undefined],
    ['style', 'ort'],
    ['rankFiles', []],
    ['chain', { ...good.chain, segments: [{ ...first, file: '../segment_000.onnx' }, ...others] }],
    ['chain', { ...good.chain, segments: [{ ...first, reads: 3 }, ...others] }],
    ['chain', { ...good.chain, segments: [{ ...first, meets: [{ kind: 'all-to-all' }] }, ...others] }],
    ['chain', { ...good.chain, caches: [{ past: 1 }] }],
  ];
  for (const [key, value] of broken) {
    writeFileSync(path, JSON.stringify({ ...good, [key]: value }));
    const isRefused = (error: unknown): boolean => error instanceof Diagnostic && error.code === 'OF_RANKS';
    assert.throws(() => readRanks(out), isRefused, `${key} ${JSON.stringify(value)}`);
  }
  const reads = { ...good.chain, segments: [{ ...first, gives: ['nobody'] }, ...others] };
  writeFileSync(path, JSON.stringify({ ...good, chain: reads }));
  assert.match((await runCli('verify', input, out)).stderr, /OF_RANKS .*segment_000\.onnx has no 'nobody'/);
});

test('the runner is short, and needs what README says', () => {
  const text = readFileSync(join(ROOT, 'api/shard/run_ranks.py'), 'utf8');
  assert.ok(text.split('\n').length <= 250, String(text.split('\n').length));
  const packages = [...text.matchAll(/^ *(?:import|from) (\w+)/gm)].map(([, name]) => name as string);
  const standard = ['argparse', 'contextlib', 'hashlib', 'json', 'os', 'pathlib', 'socket', 'sys', 'threading', 'time'];
  const others = new Set(packages.filter((name) => !standard.includes(name)));
  assert.equal([...others].sort(), ['numpy', 'onnxruntime', 'tokenizers', 'torch']);
});

test.run();
