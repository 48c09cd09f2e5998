/** `onnx-fuse bench a.onnx b.onnx` */

import { cpus } from 'node:os';
import { basename } from 'node:path';
import { sizeText } from '../../api/basics/byte-size.js';
import { silent, stderrTalk } from '../../api/basics/progress.js';
import { writeJson } from '../../api/basics/small-file.js';
import { checkTarget } from '../../api/basics/targets.js';
import { modelFile } from '../../api/folder/model-folder.js';
import { withHead } from '../../api/fuse/evidence.js';
import { calibrateFor } from '../../api/plan/measured-speed.js';
import { noteFallback } from '../../api/verify/providers.js';
import { errors, openModel } from '../../ir/index.js';
import { counted } from '../../ir/visible.js';
import { type BenchResult, loadRuntime, measureBandwidth, runBench, type SessionOptions } from '../../runtime/index.js';
import type { benchSpec } from '../options/bench.js';
import type { ArgumentsOf } from '../options/spec.js';
import { renderPlacement } from '../text/render.js';
import { table } from '../text/table.js';
import { give } from './command.js';

interface Bench extends BenchResult {
  readonly machine: string;
  readonly provider: string;
  /** Bytes of weights per second that a MatMul of one row gets through here. */
  readonly bytesPerSecond: number;
}

export async function benchCommand(args: ArgumentsOf<typeof benchSpec>): Promise<number> {
  const talk = args.quiet ? silent : stderrTalk();
  const options: SessionOptions = { provider: args.provider, threads: args.threads };
  const batches = args.batch.split(',').map((word) => countOf('--batch', Number(word)));
  const paths = [args.a, ...(args.b === undefined ? [] : [args.b])].map(modelFile);
  checkTarget(args.calibrate, paths, args.json === undefined ? [] : [args.json]);
  const models = paths.map((path) => ({ path, model: openModel(path) }));
  const bytesPerSecond = await measureBandwidth(options);
  const result = await runBench({
    models,
    options,
    allowFallback: args['allow-fallback'],
    batches,
    prompt: countOf('--prompt', args.prompt),
    decode: countOf('--decode', args.decode),
    rounds: countOf('--rounds', args.rounds),
    onTurn: (done, total) => talk.progress('taking turns', done, total),
  });
  talk.done();
  for (const { path, placement } of result.models) if (placement) noteFallback(placement, path, talk);
  const { version } = await loadRuntime();
  const machine = `${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}, Node ${process.versions.node}, onnxruntime-node ${version}`;
  const bench: Bench = { machine, provider: args.provider, bytesPerSecond, ...result };
  if (args.calibrate !== undefined) {
    const { provider, runtime, context } = args;
    const batch = batches[0];
    const speed = { ...options, provider, runtime, context: countOf('--context', context), batch, talk };
    await writeJson(args.calibrate, await calibrateFor(paths[0] as string, speed));
  }
  return give({ kind: 'benchmark', result: await withHead('benchmark', paths, bench), render: renderBench }, args.json);
}

function countOf(flag: string, value: number): number {
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw errors.usage(flag, `'${value}' is no count`, 'give a whole number from 1 on');
}

const ms = (value: number): string => (value < 100 ? value.toPrecision(3) : value.toFixed(0));

/** What `onnx-fuse bench` prints: the ratio first. */
export function renderBench({ models, rows, cache, machine, provider, bytesPerSecond, rounds, prompt }: Bench): string {
  const names = models.length > 1 ? ['a', 'b'] : ['a'];
  const head = [
    'batch',
    'phase',
    ...(models.length > 1 ? ['b over a (quartiles)'] : []),
    ...names.flatMap((name) => [`${name}, ms (quartiles)`, `${name}, tokens/s`]),
    ...names.map((name) => `floor of ${name}, ms`),
  ];
  const cells = rows.map(({ batch, phase, ms: times, tokensPerSecond, ratio }) => [
    String(batch),
    phase === 'prefill' ? `prompt of ${prompt}` : 'one token',
    ...(ratio ? [`${ratio.median.toFixed(2)} (${ratio.p25.toFixed(2)}..${ratio.p75.toFixed(2)})`] : []),
    ...times.flatMap(({ median, p25, p75 }, i) => [
      `${ms(median)} (${ms(p25)}..${ms(p75)})`,
      (tokensPerSecond[i] as number).toFixed(0),
    ]),
    ...models.map(({ weightBytes }) => ms((1000 * weightBytes) / bytesPerSecond)),
  ]);
  const lines = [
    ...models.map(
      ({ path, weightBytes, loadMs, peakRssBytes }, i) =>
        `${names[i]}: ${basename(path)}, ${sizeText(weightBytes)} of weights read per token, loads in ${ms(loadMs)} ms, peak memory ${sizeText(peakRssBytes)}`,
    ),
    ...models.flatMap(({ placement }, i) => (placement ? [`${names[i]}: ${renderPlacement(placement)}`] : [])),
    '',
    table(head, cells),
    '',
    `medians of ${counted(rounds, 'round')} in which the models took turns; ${provider}, ${machine}`,
    `floor: the weights over ${(bytesPerSecond / 1e9).toPrecision(3)} GB/s, at which a MatMul of one row reads them here`,
    cache === 'on the GPU'
      ? 'KV caches stay on the GPU from step to step'
      : 'onnxruntime-node copies KV caches out and in at every step: that is part of the time of a token',
  ];
  if (rows.every(({ phase }) => phase === 'prefill')) lines.push('no KV cache: nothing was decoded token by token');
  return lines.join('\n');
}
