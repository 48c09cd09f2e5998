/**
 * What the GPU kit does on the machine that it was brought to (run.sh starts it): checks models with `verify`, then measures.
 *
 *     bash run.sh OUT [--provider cuda|cpu] [--quick] [--skip verify,speed,ffn]
 *
 * Every step is a command of the project in a process of its own; OUT/gpu.json says what each was, how it ended and what it gave,
 * and is written after each, so that a run that is stopped leaves what it has. Ends with 1 when a step failed.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  createWriteStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, cpus, tmpdir, totalmem } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { BIN, ROOT } from '../../helpers/paths.js';

const text = { type: 'string' } as const;
const { values } = parseArgs({ options: { out: text, provider: text, skip: text, quick: { type: 'boolean' } } });
const { out = '.', provider = 'cuda', skip = '', quick = false } = values;

interface Step {
  readonly name: string;
  readonly command: readonly string[];
  readonly seconds: number;
  /** Exit status; null where it was killed. */
  readonly status: number | null;
  /** What it wrote as JSON; null where it wrote none. */
  readonly result: unknown;
}

const steps: Step[] = [];
const dtype = provider === 'cpu' ? 'float' : 'float16';
const machine = {
  gpu: nvidia('name,driver_version,memory.total,clocks.max.sm,clocks.max.memory'),
  cpu: `${availableParallelism()} x ${cpus()[0]?.model}`,
  memory: totalmem(),
  node: process.versions.node,
  libraries: process.env['LD_LIBRARY_PATH'] ?? '',
};

/** What nvidia-smi says of the first GPU; null where there is none. */
function nvidia(fields: string): string | null {
  const asked = spawnSync('nvidia-smi', [`--query-gpu=${fields}`, '--format=csv,noheader'], { encoding: 'utf8' });
  return asked.status === 0 ? (asked.stdout.split('\n')[0] ?? '').trim() : null;
}

function save(): void {
  const kit = { provider, dtype, quick, machine, steps };
  writeFileSync(join(out, 'gpu.json'), `${JSON.stringify(kit, null, 2)}\n`);
}

/** Runs one command of the project, with its output here and in a log. `json` is the file that it writes. */
async function step(name: string, words: readonly string[], json: string | null): Promise<boolean> {
  console.log(`\n== ${name}\n$ node ${words.map((word) => word.replace(ROOT, '')).join(' ')}`);
  const began = performance.now();
  const child = spawn(process.execPath, [...words], { stdio: ['ignore', 'pipe', 'pipe'] });
  const log = createWriteStream(join(out, `${name}.log`));
  for (const stream of [child.stdout, child.stderr]) {
    stream.pipe(log, { end: false });
    stream.pipe(process.stdout, { end: false });
  }
  const status = await new Promise<number | null>((resolve) => child.on('close', resolve));
  log.end();
  const seconds = (performance.now() - began) / 1000;
  const result = json !== null && existsSync(json) ? JSON.parse(readFileSync(json, 'utf8')) : null;
  steps.push({ name, command: words.map((word) => word.replace(ROOT, '')), seconds, status, result });
  save();
  console.log(`-- ${name}: ${status === 0 ? 'done' : `ended with ${status}`} after ${seconds.toFixed(1)} s`);
  return status === 0;
}

/** Each model on the provider: what fusion made of it against the same FFNs side by side, and the model against itself. */
async function verifyAll(scratch: string): Promise<void> {
  const folder = join(ROOT, 'models');
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.onnx'))) {
    const name = basename(file, '.onnx');
    const model = join(folder, file);
    const [fused, parallel] = ['fused', 'parallel'].map((form) => join(scratch, `${name}-${form}.onnx`)) as [
      string,
      string,
    ];
    const make = (file: string, ...how: string[]) => [BIN, model, file, ...how, '--no-verify', '--quiet'];
    const steps = 'remove-attention{layers=3-6},parallelize-ffn,drop-dead';
    const isMade =
      (await step(`make-${name}-fused`, make(fused, '--remove-attention', '3-6'), null)) &&
      (await step(`make-${name}-parallel`, make(parallel, '--pipeline', steps), null));
    const pairs: [string, string, string][] = [['itself', model, model]];
    if (isMade) pairs.push(['fused', parallel, fused]);
    for (const [what, one, other] of pairs) {
      const json = join(scratch, `${name}-${what}.json`);
      await step(`verify-${name}-${what}`, [BIN, 'verify', one, other, '--provider', provider, '--json', json], json);
    }
  }
}

const bench = (file: string): string => fileURLToPath(new URL(`../${file}`, import.meta.url));

mkdirSync(out, { recursive: true });
save();
const scratch = mkdtempSync(join(tmpdir(), 'onnx-fuse-gpu-kit-'));
try {
  const skipped = skip.split(',');
  if (!skipped.includes('verify')) await verifyAll(scratch);
  const sizes = quick ? '512' : provider === 'cpu' ? '512,1024' : '2048,4096,8192';
  if (!skipped.includes('ffn')) {
    const json = join(scratch, 'ffn.json');
    const counts = quick
      ? ['--runs', '4', '--tokens', '1,8', '--quick']
      : ['--runs', '4,8', '--tokens', '1,8,32,128,1024,4096'];
    const words = ['--provider', provider, '--dtype', dtype, '--hidden', sizes, ...counts, '--json', json];
    await step('ffn', [bench('ffn/ffn-form.js'), ...words], json);
  }
  if (!skipped.includes('speed')) {
    const json = join(scratch, 'speed.json');
    const rounds = quick ? ['--rounds', '2', '--batch', '1', '--prompt', '16', '--decode', '4'] : [];
    const words = ['--provider', provider, '--dtype', dtype, '--hidden', sizes, ...rounds, '--json', json];
    await step('speed', [bench('speed.js'), ...words], json);
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
const failed = steps.filter(({ status }) => status !== 0).map(({ name }) => name);
console.log(failed.length === 0 ? `\nall ${steps.length} steps ended well` : `\nfailed: ${failed.join(', ')}`);
process.exitCode = failed.length === 0 ? 0 : 1;
