/** `onnx-fuse shard` and `verify` of what it wrote, as a user runs them. */
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type ShardRequest, shard } from '../../../api/index.js';
import { readRanks } from '../../../api/shard/ranks-file.js';
import { readTpPlan } from '../../../api/shard/tp-plan.js';
import { Diagnostic, openModel } from '../../../ir/index.js';
import { annotationsOf } from '../../../ir/proto/device-configuration.js';
import { TALES12 } from '../../helpers/paths.js';
import { checkBytes } from '../../helpers/rank-bytes.js';
import { writeSmallDecoder } from '../../helpers/small-decoder.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

const test = suite('cli: shard');
const PLAIN = { style: 'ort', lmHead: 'gather', refuse: false, verify: true, force: false } as const;

function request(folder: string, more: Partial<ShardRequest> = {}): ShardRequest {
  return { input: TALES12, output: join(folder, 'out'), ranks: 2, ...PLAIN, ...more };
}

/** A test in a folder of its own. */
function inFolder(name: string, work: (folder: string) => void | Promise<void>): void {
  test(name, () => inWorkspace(work));
}

/** The exit code of a command line. */
async function main(argv: readonly string[]): Promise<number> {
  return (await runCli(...argv)).code;
}

/** What something refuses with. */
async function refusal(work: () => Promise<unknown>): Promise<Diagnostic> {
  try {
    await work();
  } catch (error) {
    if (error instanceof Diagnostic) return error;
    throw error;
  }
  throw new Error('it was expected to refuse');
}

inFolder('writes a model for each rank, and says what each holds', async (folder) => {
  const report = await shard(request(folder, { ranks: 4, verify: false }));
  const out = join(folder, 'out');
  assert.equal(readdirSync(out).sort(), [...report.onnx_fuse.files].sort());
  assert.is(report.token.allReduces, 24);
  assert.is(report.token.allGathers, 1);
  for (const { weights } of report.rankFiles) {
    // 4 heads of queries, 2 of keys and values: pairs of ranks hold the same keys and values.
    const { sharded, replicated } = weights;
    assert.ok(
      sharded > report.original.weightBytes * 0.2 && sharded < report.original.weightBytes * 0.3,
      String(sharded),
    );
    assert.ok(replicated < report.original.weightBytes * 0.02, String(replicated));
  }
  const rank = openModel(join(out, 'rank_3_model.onnx'));
  const cache = rank.graph.inputs.find(({ name }) => name === 'past_key_values.0.key');
  assert.equal(cache?.type?.kind === 'tensor' && cache.type.shape?.[1], 1);
  const made = rank.metadata.find(([key]) => key === 'onnx-fuse.pipeline')?.[1] ?? '';
  assert.match(made, /^inline-functions,shard-tensor-parallel\{ranks=4 rank=3 /);
});

inFolder('four ranks together compute the original', async (folder) => {
  const input = writeSmallDecoder(folder, 'decomposed');
  const { check, token } = await shard(request(folder, { input, ranks: 4 }));
  assert.is(token.allReduces, 10);
  assert.ok(check && check.maxRelative <= check.tolerance && check.maxRelative > 0);
  assert.is(await main(['verify', input, join(folder, 'out'), '--tolerance', '1e-5']), 0);
});

inFolder('a trained model of half precision is computed by two ranks, too', async (folder) => {
  const { check, token } = await shard(request(folder));
  assert.is(token.allReduces, 24);
  assert.ok(check && check.maxRelative <= check.tolerance && check.maxRelative > 0);
});

test("the bytes of all ranks are the original's, once where they are cut and on every rank where they are not", () => {
  for (const ranks of [2, 4]) {
    for (const lmHead of ['gather', 'replicate'] as const) {
      assert.is(checkBytes(TALES12, { ranks, style: 'ort', lmHead, refuse: false }), null);
    }
  }
});

test("TensorRT's collectives and none at all compute the same", async () => {
  for (const style of ['trt', 'none'] as const) {
    const { check } = await inWorkspace((folder) => {
      const input = writeSmallDecoder(folder, 'decomposed');
      return shard(request(folder, { input, style }));
    });
    assert.ok(check && check.maxRelative <= check.tolerance, style);
  }
});

inFolder('same input and options, same bytes', async (folder) => {
  const [a, b] = [join(folder, 'a'), join(folder, 'b')];
  for (const output of [a, b]) await shard(request(folder, { output, verify: false }));
  for (const file of readdirSync(a)) assert.ok(readFileSync(join(a, file)).equals(readFileSync(join(b, file))), file);
});

inFolder('a rank that holds another share than its own is found out', async (folder) => {
  const input = writeSmallDecoder(folder, 'decomposed');
  const report = await shard(request(folder, { input, verify: false }));
  const out = join(folder, 'out');
  assert.is(await main(['verify', input, out, '--tolerance', '1e-5']), 0);
  // Rank 1 gets the model of rank 0: all shapes fit, and the sums are wrong.
  for (const file of [report.rankFiles[0]?.model ?? '', ...(report.rankFiles[0]?.data ?? [])]) {
    cpSync(join(out, file), join(out, file.replace('rank_0', 'rank_1')));
  }
  assert.is(await main(['verify', input, out, '--tolerance', '1e-5']), 1);
});

inFolder('what cannot be cut is refused, and nothing is written', async (folder) => {
  const layers = [...Array(12).keys()];
  const asked = { replicateAttention: layers, replicateFfn: layers };
  assert.is((await refusal(() => shard(request(folder, asked)))).code, 'OF_NOTHING_CUT');
  assert.is((await refusal(() => shard(request(folder, { device: 'h100x8' })))).code, 'OF_USAGE');
  assert.not(existsSync(join(folder, 'out')));
  await shard(request(folder, { verify: false }));
  const again = request(folder, { input: join(folder, 'out', 'rank_0_model.onnx'), output: join(folder, 'again') });
  const { code, message } = await refusal(() => shard(again));
  assert.is(code, 'OF_NOTHING_CUT');
  assert.match(message, /a rank of a group already/);
});

inFolder('a folder with files of others is left alone, one of ours is replaced', async (folder) => {
  await shard(request(folder, { ranks: 4, verify: false }));
  await shard(request(folder, { verify: false }));
  const out = join(folder, 'out');
  assert.not(readdirSync(out).some((name) => name.startsWith('rank_3')));
  writeFileSync(join(out, 'mine.txt'), 'mine');
  assert.is((await refusal(() => shard(request(folder, { verify: false })))).code, 'OF_USAGE');
  assert.is(readFileSync(join(out, 'mine.txt'), 'utf8'), 'mine');
});

inFolder('ranks.json is not believed', async (folder) => {
  await shard(request(folder, { verify: false }));
  const out = join(folder, 'out');
  const path = join(out, 'ranks.json');
  const good = JSON.parse(readFileSync(path, 'utf8'));
  const broken: readonly [string, unknown][] = [
    ['ranks', 1e9],
    ['ranks', '2'],
    ['style', 'mpi'],
    ['caches', [{ ...good.caches[0], pieces: 3 }]],
    ['caches', [{ ...good.caches[0], axis: -1 }]],
    ['collectives', [{ kind: 'all-to-all', gives: 'x', gets: null, axis: null }]],
  ];
  for (const [key, value] of broken) {
    writeFileSync(path, JSON.stringify({ ...good, [key]: value }));
    assert.is((await refusal(async () => readRanks(out))).code, 'OF_RANKS', `${key} ${JSON.stringify(value)}`);
  }
  writeFileSync(path, JSON.stringify({ ...good, caches: [{ ...good.caches[0], name: 'nobody' }] }));
  assert.is(await main(['verify', TALES12, out]), 2);
  writeFileSync(path, JSON.stringify(good));
  rmSync(join(out, 'rank_1_model.onnx'));
  assert.is(await main(['verify', TALES12, out]), 2);
});

inFolder('a plan in the words of Hugging Face says what is cut', (folder) => {
  const path = join(folder, 'plan.json');
  const read = (plan: unknown) => {
    writeFileSync(path, JSON.stringify(plan));
    return readTpPlan(path);
  };
  const all = {
    'layers.*.self_attn.q_proj': 'colwise',
    'layers.*.self_attn.o_proj': 'rowwise',
    'layers.*.mlp.down_proj': 'rowwise',
    lm_head: 'colwise_rep',
  };
  assert.equal(read(all), { replicateAttention: [], replicateFfn: [], lmHead: 'gather' });
  const some = { ...all, 'model.layers.3.mlp.down_proj': 'replicate', 'layers.5.self_attn.o_proj': 'replicated' };
  assert.equal(read(some), { replicateAttention: [5], replicateFfn: [3], lmHead: 'gather' });
  const { replicateFfn } = read({ 'layers.*.mlp.up_proj': 'replicate', 'layers.2.mlp.up_proj': 'colwise' });
  assert.equal(replicateFfn.slice(0, 4), [0, 1, 3, 4]);
  for (const wrong of [
    { 'layers.0.self_attn.q_proj': 'rowwise' },
    { 'layers.0.mlp.gate_proj': 'colwise', 'layers.0.mlp.down_proj': 'replicate' },
    { 'layers.0.mlp.experts': 'colwise' },
    { lm_head: 'rowwise' },
    [],
  ]) {
    assert.throws(
      () => read(wrong),
      (error: unknown) => error instanceof Diagnostic && error.code === 'OF_PLAN',
    );
  }
});

inFolder('an annotated model computes what it did, and its annotations survive a round trip', async (folder) => {
  const out = join(folder, 'annotated.onnx');
  assert.is(await main(['shard', TALES12, out, '--tp', '2', '--collectives', 'annotate', '--quiet']), 0);
  const annotated = (path: string) =>
    [...openModel(path).graph.nodes()].flatMap((node) => annotationsOf(node).map(({ tensors }) => tensors.join()));
  const found = annotated(out);
  // q, k, v, o, gate, up and down of twelve layers.
  assert.is(found.length, 84);
  assert.is(openModel(out).irVersion, 11);
  const copy = join(folder, 'copy.onnx');
  assert.is(await main([out, copy, '--pipeline', '', '--quiet']), 0);
  assert.ok(readFileSync(out).equals(readFileSync(copy)));
  const fused = join(folder, 'fused.onnx');
  assert.is(await main([out, fused, '--remove-attention', '3-6', '--no-verify', '--quiet']), 0);
  const left = annotated(fused);
  assert.ok(left.length > 0 && left.length < 84);
  assert.is(await main(['verify', TALES12, out, '--tolerance', '0']), 0);
});

test.run();
