/**
 * Big models: how long a fusion takes beside a plain copy and beside other tools, and how much memory.
 *
 *     npm run bench -- [--sizes 2] [--rounds 3] [--tools] [--slow] [--folder DIR] [--json FILE]
 *
 * Each size (in GB) is a float32 decoder with external data, as the onnxruntime-genai builder writes them, of which half
 * the FFNs become one. Every command takes its turn within a round, in a process of its own; before each the output of the
 * one before is removed, as much memory as a copy takes has just been in use (a virtual machine has to ask its host for more), and the
 * disk is at rest. Copies are synced to the disk, like our own output. Input in the page
 * cache as far as it fits. Peak memory is VmHWM (Linux), which counts mapped files too.
 *
 * --tools: also onnx-ir and onnxscript, --slow: onnxsim and OnnxSlim as well, with the interpreter ONNX_FUSE_PYTHON names (else python3), as far as it has them:
 * pip install onnx-ir onnxscript onnxsim onnxslim onnxruntime
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { BIN } from '../helpers/paths.js';
import type { DecoderSpec } from './decoder.js';
import { writeDecoder } from './make-decoder.js';

const PYTHON = process.env['ONNX_FUSE_PYTHON'] ?? 'python3';
const TIMEOUT_MS = 900_000;
const GB = 1e9;

/** Half of the layers and one more have no attention, in the middle: all of them but the last become one FFN. */
function specOf(gigabytes: number): DecoderSpec {
  const [hidden, width, heads, kvHeads, headSize] = [1024, 4096, 16, 4, 64] as const;
  const ffnBytes = 3 * hidden * width * 4;
  const attentionBytes = (2 * hidden * heads * headSize + 2 * hidden * kvHeads * headSize) * 4;
  const count = Math.round((gigabytes * GB) / (ffnBytes + attentionBytes / 2));
  const first = Math.floor(count / 4);
  const last = first + Math.floor(count / 2);
  const layers = Array.from({ length: count }, (_, i) => ({ attention: i < first || i > last, width }));
  return { form: 'skip', dtype: 'float', hidden, heads, kvHeads, headSize, vocabulary: 4096, layers };
}

/** `python3 -c`: load and save, with the given lines between; what was saved is synced. */
function python(...lines: readonly string[]): string[] {
  const text = ['import os, sys', 'source, target = sys.argv[1:3]', ...lines, ...SYNC].join('\n');
  return [PYTHON, '-c', text, 'IN', 'OUT'];
}
const SYNC = [
  'for path in (target, target + ".data"):',
  '    if os.path.exists(path):',
  '        file = os.open(path, os.O_RDONLY)',
  '        os.fsync(file)',
];
const IR_SAVE = 'onnx_ir.save(model, target, external_data=os.path.basename(target) + ".data")';
const ONNX_SAVE = 'onnx.save(model, target, save_as_external_data=True, location=os.path.basename(target) + ".data")';

interface Command {
  readonly name: string;
  /** IN and OUT stand for the paths. */
  readonly argv: readonly string[];
  /** The Python module it needs. */
  readonly module?: string;
}

const COPY: Command = {
  name: 'cp + sync',
  argv: ['sh', '-c', 'cp "$0" "$1" && cp "$0.data" "$1.data" && sync "$1" "$1.data"', 'IN', 'OUT'],
};
const COMMANDS: readonly Command[] = [
  { name: 'onnx-fuse', argv: [process.execPath, BIN, 'IN', 'OUT', '--no-verify', '--quiet'] },
  // Beside the input, where it must lie.
  {
    name: 'onnx-fuse --share-weights',
    argv: [process.execPath, BIN, 'IN', 'BESIDE', '--no-verify', '--quiet', '--share-weights'],
  },
  COPY,
];
const TOOLS: readonly Command[] = [
  {
    name: 'onnx-ir, load + save',
    argv: python('import onnx_ir', 'model = onnx_ir.load(source)', IR_SAVE),
    module: 'onnx_ir',
  },
  {
    name: 'onnxscript optimizer',
    argv: python(
      'import onnx_ir, onnxscript.optimizer',
      'model = onnx_ir.load(source)',
      'onnxscript.optimizer.optimize_ir(model)',
      IR_SAVE,
    ),
    module: 'onnxscript',
  },
];
const SLOW_TOOLS: readonly Command[] = [
  {
    name: 'onnxsim',
    argv: python('import onnx, onnxsim', 'model, _ = onnxsim.simplify(onnx.load(source))', ONNX_SAVE),
    module: 'onnxsim',
  },
  {
    name: 'OnnxSlim',
    argv: python('import onnx, onnxslim', 'model = onnxslim.slim(onnx.load(source))', ONNX_SAVE),
    module: 'onnxslim',
  },
];

interface Turn {
  readonly seconds: number;
  /** Of the processor, as far as it was seen while the process lived. */
  readonly cpuSeconds: number;
  readonly rssBytes: number;
  /** The last line it complained with; null when it went well. */
  readonly failure: string | null;
}

/** Runs a command and watches its memory. */
function take(command: Command, input: string, output: string): Promise<Turn> {
  const paths = new Map([
    ['IN', input],
    ['OUT', output],
    ['BESIDE', besideOf(input)],
  ]);
  const [program, ...args] = command.argv.map((word) => paths.get(word) ?? word);
  const began = performance.now();
  const child = spawn(program as string, args, { stdio: ['ignore', 'ignore', 'pipe'], timeout: TIMEOUT_MS });
  let rssBytes = 0;
  let cpuSeconds = 0;
  let complaint = '';
  child.stderr.on('data', (chunk) => (complaint = (complaint + chunk).slice(-4000)));
  const watch = setInterval(() => {
    rssBytes = Math.max(rssBytes, peakOf(child.pid));
    cpuSeconds = Math.max(cpuSeconds, cpuOf(child.pid));
  }, 10);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearInterval(watch);
      const last = complaint.trimEnd().split('\n').at(-1) ?? '';
      const failure = code === 0 ? null : `${signal ?? `exit code ${code}`}: ${last}`;
      resolve({ seconds: (performance.now() - began) / 1000, cpuSeconds, rssBytes, failure });
    });
  });
}

function besideOf(input: string): string {
  return input.replace(/\.onnx$/, '-shared.onnx');
}

function peakOf(pid: number | undefined): number {
  try {
    return 1024 * Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** Seconds of the processor of a process and of its children that have ended; 100 ticks a second on every Linux. */
function cpuOf(pid: number | undefined): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / 100;
  } catch {
    return 0;
  }
}

interface Row {
  readonly gigabytes: number;
  readonly bytes: number;
  readonly nodes: number;
  readonly parameters: number;
  readonly command: string;
  readonly turns: readonly Turn[];
  /** The median of the time over that of the copy in the same round. */
  readonly ofCopy: number;
  /** Of the turns that went well: the fastest and the median time, the largest memory. */
  readonly best: number;
  readonly median: number;
  readonly cpuSeconds: number;
  readonly rssBytes: number;
  readonly outputBytes: number;
}

async function measure(
  folder: string,
  gigabytes: number,
  rounds: number,
  commands: readonly Command[],
): Promise<Row[]> {
  const input = join(folder, 'in.onnx');
  const made = writeDecoder(input, specOf(gigabytes));
  const bytes = made.headerBytes + made.dataBytes;
  const place = join(folder, 'out');
  const output = join(place, 'out.onnx');
  const turns = new Map<Command, Turn[]>(commands.map((command) => [command, []]));
  const sizes = new Map<Command, number>();
  for (let round = 0; round < rounds; round++) {
    for (const command of commands) {
      const mine = turns.get(command) as Turn[];
      // What failed once fails again.
      if (mine.some(({ failure }) => failure !== null)) continue;
      const made = command.argv.includes('BESIDE') ? besideOf(input) : output;
      rmSync(place, { recursive: true, force: true });
      for (const path of [besideOf(input), `${besideOf(input)}.data`]) rmSync(path, { force: true });
      mkdirSync(place);
      useMemory(join(place, 'use'), bytes);
      spawnSync('sync');
      const turn = await take(command, input, output);
      mine.push(turn);
      sizes.set(command, sizeOf(made) + sizeOf(`${made}.data`));
      console.error(
        `${gigabytes} GB, ${command.name}: ${turn.failure ?? `${turn.seconds.toFixed(2)} s, ${mb(turn.rssBytes)} MB`}`,
      );
    }
  }
  rmSync(place, { recursive: true, force: true });
  for (const path of [besideOf(input), `${besideOf(input)}.data`]) rmSync(path, { force: true });
  rmSync(input);
  rmSync(`${input}.data`);
  const copies = turns.get(COPY) as Turn[];
  return commands.map((command) => {
    const all = turns.get(command) as Turn[];
    const good = all.filter(({ failure }) => failure === null).sort((a, b) => a.seconds - b.seconds);
    return {
      gigabytes,
      bytes,
      nodes: made.nodes,
      parameters: made.parameters,
      command: command.name,
      turns: all,
      ofCopy: medianOf(all.map(({ seconds }, round) => seconds / (copies[round] as Turn).seconds)),
      best: good[0]?.seconds ?? Number.NaN,
      median: good[Math.floor(good.length / 2)]?.seconds ?? Number.NaN,
      cpuSeconds: medianOf(all.map((turn) => turn.cpuSeconds)),
      rssBytes: Math.max(...all.map((turn) => turn.rssBytes)),
      outputBytes: sizes.get(command) ?? 0,
    };
  });
}

/** Writes a file of so many bytes, and removes it: the next file is written into the pages of memory that held it. */
function useMemory(path: string, bytes: number): void {
  const chunk = new Uint8Array(256 * 1024);
  const file = openSync(path, 'w');
  for (let done = 0; done < bytes; done += chunk.length) writeSync(file, chunk);
  closeSync(file);
  rmSync(path);
}

function medianOf(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function mb(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}

function has(module: string): boolean {
  const found = spawnSync(PYTHON, ['-c', `import ${module}`]).status === 0;
  if (!found) console.error(`left out: ${PYTHON} has no ${module}`);
  return found;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      sizes: { type: 'string', default: '2' },
      rounds: { type: 'string', default: '3' },
      tools: { type: 'boolean', default: false },
      slow: { type: 'boolean', default: false },
      folder: { type: 'string', default: tmpdir() },
      json: { type: 'string' },
    },
  });
  const asked = [...(values.tools ? TOOLS : []), ...(values.slow ? SLOW_TOOLS : [])];
  const tools = asked.filter(({ module }) => module === undefined || has(module));
  const folder = mkdtempSync(join(values.folder, 'onnx-fuse-bench-'));
  const rows: Row[] = [];
  try {
    for (const size of values.sizes.split(',').map(Number)) {
      rows.push(...(await measure(folder, size, Number(values.rounds), [...COMMANDS, ...tools])));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const machine = `${availableParallelism()} x ${cpus()[0]?.model}, Node ${process.versions.node}`;
  console.log(`${machine}; times of ${values.rounds} rounds, GB = 10^9 bytes, MB = 10^6 bytes`);
  const table = new Table({
    head: [
      'GB',
      'command',
      'of cp',
      'median, s',
      'best, s',
      'best, s per GB',
      'processor, s',
      'peak, MB',
      'written, GB',
    ],
    style: { head: [], border: [], compact: true },
  });
  for (const row of rows) {
    const failure = row.turns.find((turn) => turn.failure !== null)?.failure;
    const times = failure
      ? ['fails', failure.slice(0, 60), '', '']
      : [row.ofCopy, row.median, row.best, row.best / (row.bytes / GB)].map((each) => each.toFixed(2));
    table.push([
      (row.bytes / GB).toFixed(2),
      row.command,
      ...times,
      row.cpuSeconds.toFixed(2),
      mb(row.rssBytes),
      (row.outputBytes / GB).toFixed(2),
    ]);
  }
  console.log(table.toString());
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ machine, rows }, null, 2)}\n`);
}

await main();
