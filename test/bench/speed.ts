/**
 * What removal and fusion gain in speed, at the layer shapes of real models, with weights that mean nothing.
 *
 *     npm run bench:speed -- [--hidden 512,1024] [--dtype float]        # the CPU of this machine
 *     npm run bench:gpu                                                 # CUDA: fp16, hidden 2048, 4096 and 8192
 *
 * A decoder as the onnxruntime-genai builder writes it: 8 layers, GroupQueryAttention, skip norms. `removed` has no attention in layers
 * 2 to 6; in `fused` the FFNs of 2 to 5 are one, too (the last stays, as in the paper). Pairs of models are timed as `onnx-fuse bench` does.
 *
 * The second table is what `plan` makes of it: `bench --calibrate` measures on the original what fusing saves, and FFNs are fused
 * unasked only where what is to be fast (`--optimize-for`) was measured to gain by it. A ratio of 1 is a plan that leaves FFNs alone.
 */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { knownGain } from '../../api/plan/plan.js';
import { commandSpec } from '../../cli/options/spec.js';
import { table } from '../../cli/text/table.js';
import type { BenchResult, BenchRow, Device } from '../../runtime/index.js';
import { BIN } from '../helpers/paths.js';
import { argumentsFor } from './arguments.js';
import type { DecoderSpec } from './decoder.js';
import { writeDecoder } from './make-decoder.js';

const LAYERS = 8;
const GONE = '2-6';
/** Widths of FFNs of Llama 3 at 1B, 8B and 70B. */
const WIDTHS: Readonly<Record<number, number>> = { 2048: 8192, 4096: 14336, 8192: 28672 };

const args = await argumentsFor(
  commandSpec({
    name: 'bench:speed',
    summary: 'What removal and fusion gain in speed',
    words: [],
    flags: {
      hidden: { type: 'string', fallback: '512,1024', describe: '' },
      dtype: { type: 'string', choices: ['float', 'float16'], fallback: 'float', describe: '' },
      provider: { type: 'string', fallback: 'cpu', describe: '' },
      batch: { type: 'string', fallback: '1,8,32', describe: '' },
      prompt: { type: 'number', fallback: 128, describe: '' },
      decode: { type: 'number', fallback: 32, describe: '' },
      rounds: { type: 'number', fallback: 7, describe: '' },
      folder: { type: 'string', fallback: tmpdir(), describe: 'Where models are made: 28 GB at hidden 8192' },
      json: { type: 'string', describe: '' },
    },
  }),
);

function specOf(hidden: number): DecoderSpec {
  const headSize = hidden >= 4096 ? 128 : 64;
  const heads = hidden / headSize;
  const width = WIDTHS[hidden] ?? 3.5 * hidden;
  const layers = Array.from({ length: LAYERS }, () => ({ attention: true, width }));
  return {
    form: 'skip',
    dtype: args.dtype,
    hidden,
    heads,
    kvHeads: Math.min(8, heads / 4),
    headSize,
    vocabulary: 4096,
    layers,
  };
}

function onnxFuse(...words: string[]): void {
  const { status, stderr } = spawnSync(process.execPath, [BIN, ...words], { stdio: ['ignore', 'ignore', 'pipe'] });
  if (status !== 0) throw new Error(`onnx-fuse ${words.join(' ')} ended with ${status}: ${stderr}`);
}

interface Pair {
  readonly hidden: number;
  readonly pair: string;
  readonly result: BenchResult & { readonly machine: string; readonly bytesPerSecond: number };
}

function compare(hidden: number, a: string, b: string, folder: string): Pair {
  const json = join(folder, 'bench.json');
  const words = (['batch', 'prompt', 'decode', 'rounds', 'provider'] as const).flatMap((name) => [
    `--${name}`,
    String(args[name]),
  ]);
  onnxFuse('bench', join(folder, `${a}.onnx`), join(folder, `${b}.onnx`), '--json', json, ...words, '--quiet');
  return { hidden, pair: `${b} / ${a}`, result: JSON.parse(readFileSync(json, 'utf8')) };
}

/** What fusing was measured to save of a token and of a prompt, seconds for each FFN that is no more. */
interface Choice {
  readonly hidden: number;
  readonly batch: number;
  readonly device: Device;
}

function calibrate(hidden: number, batch: number, model: string, folder: string): Choice {
  const file = join(folder, 'device.json');
  // Weights alone are of interest: few tokens before the one that is timed.
  const how = ['--runtime', 'node', '--context', '128', '--batch', String(batch), '--rounds', String(args.rounds)];
  onnxFuse('bench', model, '--calibrate', file, ...how, '--provider', args.provider, '--quiet');
  return { hidden, batch, device: JSON.parse(readFileSync(file, 'utf8')) as Device };
}

const choices: Choice[] = [];
const pairs: Pair[] = [];
const folder = mkdtempSync(join(args.folder, 'onnx-fuse-speed-'));
try {
  for (const hidden of args.hidden.split(',').map(Number)) {
    const at = (name: string): string => join(folder, `${name}.onnx`);
    const made = writeDecoder(at('original'), specOf(hidden));
    console.error(`hidden ${hidden}: ${(made.parameters / 1e6).toFixed(0)} M parameters`);
    const written = ['--no-verify', '--quiet', '--external'];
    onnxFuse(at('original'), at('removed'), '--pipeline', `remove-attention{layers=${GONE}},drop-dead`, ...written);
    pairs.push(compare(hidden, 'original', 'removed', folder));
    onnxFuse(at('original'), at('fused'), '--remove-attention', GONE, ...written);
    for (const batch of args.batch.split(',').map(Number))
      choices.push(calibrate(hidden, batch, at('original'), folder));
    for (const file of [at('original'), `${at('original')}.data`]) rmSync(file);
    pairs.push(compare(hidden, 'removed', 'fused', folder));
    for (const name of ['removed', 'fused']) for (const file of [at(name), `${at(name)}.data`]) rmSync(file);
    if (args.json !== undefined) {
      const machine = { cores: availableParallelism(), cpu: cpus()[0]?.model, node: process.versions.node };
      writeFileSync(
        args.json,
        `${JSON.stringify({ machine, dtype: args.dtype, gpu: gpuName(), pairs, choices }, null, 2)}\n`,
      );
    }
  }
} finally {
  rmSync(folder, { recursive: true });
}
const ms = (value: number): string => (value < 100 ? value.toPrecision(3) : value.toFixed(0));
const cells = ({ batch, phase, ms: times, ratio, tokensPerSecond }: BenchRow): string[] => [
  String(batch),
  phase,
  ratio ? `${ratio.median.toFixed(2)} (${ratio.p25.toFixed(2)}..${ratio.p75.toFixed(2)})` : '-',
  ...times.map(({ median }) => ms(median)),
  ...tokensPerSecond.map((each) => each.toFixed(0)),
];
console.log(
  table(
    [
      'hidden',
      'pair',
      'batch',
      'phase',
      'time of it (quartiles)',
      'before, ms',
      'after, ms',
      'before, tokens/s',
      'after, tokens/s',
    ],
    pairs.flatMap(({ hidden, pair, result }) => result.rows.map((row) => [String(hidden), pair, ...cells(row)])),
  ),
);
console.log(
  table(
    [
      'hidden',
      'batch',
      'gain a token, us',
      'a prompt, us',
      'optimized for',
      'fuses',
      'token: fused',
      'as planned',
      'prompt: fused',
      'as planned',
    ],
    choices.flatMap(rowsOf),
  ),
);
const [first] = pairs;
console.log(
  `${first?.result.machine}${gpuName() ? `, ${gpuName()}` : ''}; ${args.provider}, ${args.dtype}, prompts of ${args.prompt}`,
);

/** For each goal: whether `plan` fuses, and the time over that of the FFNs apart, if they are fused anyway and as it is planned. */
function rowsOf({ hidden, batch, device }: Choice): string[][] {
  const { result } = pairs.find((pair) => pair.hidden === hidden && pair.pair === 'fused / removed') as Pair;
  const ratio = (phase: BenchRow['phase']): number =>
    result.rows.find((row) => row.batch === batch && row.phase === phase)?.ratio?.median ?? Number.NaN;
  const micro = (seconds = Number.NaN): string => (1e6 * seconds).toFixed(0);
  return (['decode', 'prompt', 'both'] as const).map((goal) => {
    const fuses = knownGain(device, goal) > 0;
    const cells = (['decode', 'prefill'] as const).flatMap((phase) => [ratio(phase), fuses ? ratio(phase) : 1]);
    return [
      String(hidden),
      String(batch),
      micro(device.fusion?.token),
      micro(device.fusion?.prompt),
      goal,
      fuses ? 'yes' : 'no',
      ...cells.map((each) => each.toFixed(2)),
    ];
  });
}

/** What nvidia-smi calls the GPU; empty where there is none. */
function gpuName(): string {
  const { stdout } = spawnSync('nvidia-smi', ['--query-gpu=name,driver_version', '--format=csv,noheader'], {
    encoding: 'utf8',
  });
  return (stdout ?? '').trim();
}
