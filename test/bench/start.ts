/**
 * How long commands take to start, beside an empty Node: processes in turns, wall-clock and processor time.
 *
 *     npm run bench:start -- [--rounds 15] [--json FILE]
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { commandSpec } from '../../cli/options/spec.js';
import { table } from '../../cli/text/table.js';
import { BIN, TALES12 } from '../helpers/paths.js';
import { argumentsFor } from './arguments.js';

const args = await argumentsFor(
  commandSpec({
    name: 'bench:start',
    summary: 'How long commands take to start',
    words: [],
    flags: {
      rounds: { type: 'number', fallback: 15, describe: 'Turns of each' },
      json: { type: 'string', describe: 'Write the figures to this file' },
    },
  }),
);

const COMMANDS: readonly (readonly [name: string, ...argv: string[]])[] = [
  ['an empty Node', '-e', '0'],
  ['--version', BIN, '--version'],
  ['--help', BIN, '--help'],
  ['plan --help', BIN, 'plan', '--help'],
  ['passes', BIN, 'passes'],
  ['inspect tales12', BIN, 'inspect', TALES12],
];

interface Turn {
  readonly ms: number;
  readonly cpuMs: number;
}

const folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-start-'));
// What a process took is known to itself alone: it writes it down as it ends.
const meter = join(folder, 'meter.mjs');
const note = join(folder, 'cpu');
writeFileSync(
  meter,
  `import { writeFileSync } from 'node:fs';
process.on('exit', () => { const { user, system } = process.cpuUsage(); writeFileSync(${JSON.stringify(note)}, String((user + system) / 1000)); });`,
);

function take(argv: readonly string[]): Turn {
  const began = performance.now();
  const { status, stderr } = spawnSync(process.execPath, ['--import', meter, ...argv], { encoding: 'utf8' });
  const ms = performance.now() - began;
  if (status !== 0) throw new Error(`${argv.join(' ')} ended with ${status}: ${stderr}`);
  return { ms, cpuMs: Number(readFileSync(note, 'utf8')) };
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] as number;

const turns = new Map<string, Turn[]>(COMMANDS.map(([name]) => [name, []]));
try {
  for (let round = 0; round < args.rounds; round++) {
    for (const [name, ...argv] of COMMANDS) turns.get(name)?.push(take(argv));
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
const empty = turns.get('an empty Node') as Turn[];
const rows = [...turns].map(([name, all]) => ({
  name,
  ms: median(all.map(({ ms }) => ms)),
  ratio: median(all.map(({ ms }, i) => ms / (empty[i] as Turn).ms)),
  cpuMs: median(all.map(({ cpuMs }) => cpuMs)),
  cpuRatio: median(all.map(({ cpuMs }, i) => cpuMs / (empty[i] as Turn).cpuMs)),
}));
const machine = `${availableParallelism()} x ${cpus()[0]?.model}, Node ${process.versions.node}`;
console.log(`${machine}; medians of ${args.rounds} rounds`);
console.log(
  table(
    ['', 'ms', 'of an empty Node', 'processor, ms', 'of an empty Node'],
    rows.map(({ name, ms, ratio, cpuMs, cpuRatio }) => [
      name,
      ms.toFixed(0),
      ratio.toFixed(2),
      cpuMs.toFixed(0),
      cpuRatio.toFixed(2),
    ]),
  ),
);
if (args.json !== undefined) writeFileSync(args.json, `${JSON.stringify({ machine, rows }, null, 2)}\n`);
