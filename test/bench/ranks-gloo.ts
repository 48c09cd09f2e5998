/**
 * What fusion gains between ranks that run: a model as it is, with attentions removed and the FFNs between them fused, and the same
 * with fitted maps, each in one process (the whole model, one thread) and cut over ranks in processes of their own, over gloo.
 *
 *     ONNX_FUSE_PYTHON=python npm run bench:ranks-gloo -- MODEL --remove 3-8 --data text.txt [--tp 2,4] [--tokens 48] [--rounds 3]
 *
 * Beside each time stands what the cost model says. Its constants are those of the unfused row of the same number of processes
 * alone: the bandwidth is that of the segments, and what an attention or an FFN costs besides is the time in collectives, divided
 * among them. Times are medians over the tokens of all rounds; forms take turns.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { shard } from '../../api/index.js';
import { commandSpec } from '../../cli/options/spec.js';
import { table } from '../../cli/text/table.js';
import { openModel } from '../../ir/index.js';
import {
  type Device,
  generate,
  predictSecondsPerToken,
  readSignature,
  withSession,
  workOf,
} from '../../runtime/index.js';
import { readSaved, runRanks } from '../corpus/ranks/processes.js';
import { runCli } from '../helpers/workspace.js';
import { argumentsFor } from './arguments.js';

const args = await argumentsFor(
  commandSpec({
    name: 'bench:ranks-gloo',
    summary: 'Time ranks in processes of their own, unfused, fused and recovered',
    words: [{ name: 'model', describe: 'A model (.onnx)' }],
    flags: {
      remove: { type: 'string', fallback: '3-8', describe: 'Layers that lose their attention' },
      data: { type: 'string', describe: 'Text to fit maps on' },
      prompt: { type: 'string', fallback: '79,110,99,101', describe: 'Tokens to continue' },
      tp: { type: 'string', fallback: '2,4', describe: 'Numbers of ranks' },
      tokens: { type: 'number', fallback: 48, describe: 'Tokens of a round' },
      rounds: { type: 'number', fallback: 3, describe: 'Turns of each' },
      json: { type: 'string', describe: 'Write the figures to this file' },
    },
  }),
);

interface Row {
  readonly form: string;
  readonly processes: number;
  readonly collectives: number;
  /** Milliseconds a token: in all, in segments, between them. */
  readonly total: number;
  readonly inside: number;
  readonly between: number;
  readonly predicted: number | null;
}

const prompt = args.prompt.split(',').map(Number);
const ranksAsked = args.tp.split(',').map(Number);
const folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-gloo-'));
const load = loadavg()[0] as number;
try {
  const forms = await madeForms();
  const rows: Row[] = [];
  for (const { form, path } of forms) rows.push(await wholeRow(form, path));
  for (const ranks of ranksAsked) rows.push(...(await rankRows(forms, ranks)));
  const shown = rows.map(({ form, processes, collectives, total, inside, between, predicted }) => [
    form,
    String(processes),
    String(collectives),
    ...[total, inside, between].map((each) => each.toFixed(2)),
    predicted === null ? '-' : predicted.toFixed(2),
  ]);
  const head = ['form', 'processes', 'messages', 'ms a token', 'in segments', 'in collectives', 'predicted'];
  console.log(table(head, shown));
  console.log(`load of the machine: ${load.toFixed(1)} before, ${(loadavg()[0] as number).toFixed(1)} after`);
  if (args.json !== undefined) writeFileSync(args.json, `${JSON.stringify({ load, rows }, null, 1)}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

type Forms = readonly { readonly form: string; readonly path: string }[];

/** The model itself, and what the command line makes of it. */
async function madeForms(): Promise<Forms> {
  const made = [{ form: 'unfused', path: args.model }];
  const asked = ['--remove-attention', args.remove, '--no-verify', '--quiet'];
  const forms = [
    ['fused', []],
    ...(args.data === undefined
      ? []
      : [['recovered', ['--recover', '--data', args.data, '--max-tokens', '4000']] as const]),
  ] as const;
  for (const [form, more] of forms) {
    const path = join(folder, `${form}.onnx`);
    const { code, stderr } = await runCli(args.model, path, ...asked, ...more);
    if (code !== 0) throw new Error(stderr);
    made.push({ form, path });
  }
  return made;
}

/** One process: onnxruntime-node, which copies the caches at every step. */
async function wholeRow(form: string, path: string): Promise<Row> {
  const signature = readSignature(openModel(path));
  const times: number[] = [];
  await withSession(path, { threads: 1 }, async (session) => {
    let last = 0;
    const onToken = (): undefined => {
      const now = performance.now();
      if (last > 0) times.push(now - last);
      last = now;
    };
    for (let round = 0; round < args.rounds; round++) {
      last = 0;
      await generate(session, signature, prompt, args.tokens, { onToken });
    }
  });
  const total = median(times);
  return { form, processes: 1, collectives: 0, total, inside: total, between: 0, predicted: null };
}

async function rankRows(forms: Forms, ranks: number): Promise<Row[]> {
  const how = { ranks, style: 'external', lmHead: 'gather', refuse: false, verify: false, force: false } as const;
  const outs = forms.map(({ form }) => join(folder, `${form}-${ranks}`));
  const bytes: number[] = [];
  for (const [i, { path }] of forms.entries()) {
    bytes.push((await shard({ input: path, output: outs[i] as string, ...how })).token.weightBytes);
  }
  const steps: [number, number][][] = forms.map(() => []);
  const counts: number[] = [];
  for (let round = 0; round < args.rounds; round++) {
    for (const [i, out] of outs.entries()) {
      const save = join(folder, 'saved');
      const argv = ['--ids', prompt.join(), '--tokens', String(args.tokens), '--threads', '1', '--save', save];
      for (const { code, stderr } of await runRanks(out, ranks, argv)) if (code !== 0) throw new Error(stderr);
      const { seconds, collectives } = readSaved(save);
      counts[i] = collectives;
      steps[i]?.push(...(seconds.slice(1) as [number, number][]));
    }
  }
  const medians = steps.map((each) => [
    1e3 * median(each.map(([inside, between]) => inside + between)),
    1e3 * median(each.map(([inside]) => inside)),
    1e3 * median(each.map(([, between]) => between)),
  ]);
  const works = forms.map(({ path }) => workOf(openModel(path)));
  const [, inside = 0, between = 0] = medians[0] ?? [];
  const [first] = works as [ReturnType<typeof workOf>];
  const each = between / 1e3 / (first.attentions + first.ffns);
  const device: Device = {
    ...{ name: 'gloo', source: 'the unfused row', ranks, disturbed: null, fusion: null, secondsPerToken: 0 },
    bytesPerSecond: (bytes[0] as number) / (inside / 1e3),
    ...{ secondsPerAttention: each, secondsPerFfn: each, secondsPerLinear: 0 },
  };
  return forms.map(({ form }, i) => {
    const work = { ...(works[i] as typeof first), weightBytes: (bytes[i] as number) * ranks };
    const [total = 0, own = 0, others = 0] = medians[i] ?? [];
    const predicted = 1e3 * predictSecondsPerToken(work, device);
    return { form, processes: ranks, collectives: counts[i] ?? 0, total, inside: own, between: others, predicted };
  });
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
