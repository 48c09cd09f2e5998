/** `onnx-fuse bench a.onnx b.onnx` */
import { basename } from 'node:path';
import { sizeText } from '../../api/basics/byte-size.js';
import { silent, stderrTalk } from '../../api/basics/progress.js';
import { type Benchmark, bench } from '../../api/commands/bench.js';
import { errors } from '../../ir/index.js';
import { counted } from '../../ir/visible.js';
import type { benchSpec } from '../options/bench.js';
import type { ArgumentsOf } from '../options/spec.js';
import { renderPlacement } from '../text/comparison.js';
import { table } from '../text/table.js';
import type { Outcome } from './results.js';

export async function benchCommand(args: ArgumentsOf<typeof benchSpec>): Promise<Outcome> {
  const { a, b, calibrate, batch, prompt, decode, rounds, provider, threads, runtime, context, prompts } = args;
  const result = await bench(b === undefined ? [a] : [a, b], {
    batch: countsIn(batch),
    ...{ prompt, decode, rounds, provider, threads, calibrate, runtime, context, prompts },
    allowFallback: args['allow-fallback'],
    talk: args.quiet ? silent : stderrTalk(),
  });
  return { kind: 'benchmark', result, render: renderBench };
}

/** `1,8,32`; whether they are counts is seen where they are used. @throws Diagnostic OF_USAGE. */
function countsIn(text: string): number[] {
  const counts = text.split(',').map(Number);
  if (counts.some(Number.isNaN))
    throw errors.usage('--batch', `expected numbers, found '${text}'`, 'write 1,8,32, say');
  return counts;
}

const ms = (value: number): string => (value < 100 ? value.toPrecision(3) : value.toFixed(0));

/** What `onnx-fuse bench` prints: the ratio first. */
export function renderBench({
  models,
  rows,
  cache,
  machine,
  provider,
  bytesPerSecond,
  rounds,
  prompt,
}: Benchmark): string {
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
