/**
 * The fuzzers: `npm run fuzz -- --models 100000 --decoders 10000 [--seed S] [--first N] [--seconds T] [--out DIR]`, and
 * `npm run fuzz -- --case FILE` for one case again.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type CampaignRequest, runCampaign, type Summary } from './supervisor.js';
import type { Kind } from './worker.js';

const { values } = parseArgs({
  options: {
    models: { type: 'string' },
    decoders: { type: 'string' },
    seed: { type: 'string' },
    first: { type: 'string' },
    seconds: { type: 'string' },
    out: { type: 'string' },
    case: { type: 'string' },
    onnxruntime: { type: 'boolean', default: true },
  },
  allowNegative: true,
});

const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
const out = values.out ?? join('demo', 'fuzz');

async function run(kind: Kind, count: number, file?: string): Promise<number> {
  let last = 0;
  const onProgress = ({ ran, seconds, failures }: Summary): void => {
    if (seconds - last < 10) return;
    last = seconds;
    console.error(`${kind}: ${ran} of ${count} in ${seconds.toFixed(0)} s, ${failures.length} kinds of failures`);
  };
  const request: CampaignRequest = {
    kind,
    seed,
    count,
    out: file === undefined ? out : null,
    onnxruntime: values.onnxruntime,
    onProgress,
    ...(values.first === undefined ? {} : { first: Number(values.first) }),
    ...(values.seconds === undefined ? {} : { seconds: Number(values.seconds) }),
    ...(file === undefined ? {} : { file }),
  };
  const { ran, counts, failures, seconds } = await runCampaign(request);
  console.log(`${kind}: ${ran} cases of seed ${seed} in ${seconds.toFixed(0)} s`);
  for (const [name, value] of Object.entries(counts).sort()) console.log(`  ${value} ${name}`);
  for (const { signature, text, cases, file: kept } of failures) {
    console.log(`FAILED ${cases.length} x ${signature}\n  cases ${cases.slice(0, 8).join(', ')}`);
    console.log(`  ${text.split('\n').slice(0, 6).join('\n  ')}`);
    if (kept !== null) console.log(`  again: npm run fuzz -- --case ${kept}`);
  }
  return failures.length;
}

let failed = 0;
if (values.case !== undefined)
  failed += await run(values.case.endsWith('.json') ? 'decoders' : 'models', 1, values.case);
if (values.models !== undefined) failed += await run('models', Number(values.models));
if (values.decoders !== undefined) failed += await run('decoders', Number(values.decoders));
if (failed > 0) process.exitCode = 1;
