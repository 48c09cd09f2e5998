/**
 * How long the header takes, phase by phase, as it grows: reading, verifying, finding the layers, each pass of the default
 * pipeline with the attention of half of the layers removed, planning and encoding the output. No weight is touched.
 *
 *     npm run bench:headers -- [--layers 116,232,464,928] [--rounds 3] [--json FILE]
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { layOutModel } from '../../../ir/disk/layout.js';
import { openModel } from '../../../ir/disk/model.js';
import { verifyModel } from '../../../ir/verify.js';
import { concatFfn, factsOf, fuseSteps, layersOf, runPipeline } from '../../../passes/index.js';
import { type HeaderFacts, makeHeader } from './make-header.js';

interface Row extends HeaderFacts {
  /** Phase -> ms, the best of all rounds: other load only slows things down. */
  readonly ms: Readonly<Record<string, number>>;
  readonly fused: number;
  readonly nodesAfter: number;
}

/** Every second stretch of eight layers loses its attention: half of the layers, in many runs. */
function halfOf(layers: number): number[] {
  return Array.from({ length: layers }, (_, layer) => layer).filter((layer) => layer % 16 >= 8);
}

function measureOnce(path: string, layers: number): Pick<Row, 'ms' | 'fused' | 'nodesAfter'> {
  const ms: Record<string, number> = {};
  const timed = <T>(phase: string, work: () => T): T => {
    const began = performance.now();
    const made = work();
    ms[phase] = performance.now() - began;
    return made;
  };
  const began = performance.now();
  const model = timed('decode', () => openModel(path));
  const decoded = performance.now() - began;
  timed('verify', () => verifyModel(model));
  timed('find layers', () => layersOf(model));
  const steps = fuseSteps({ removeAttention: halfOf(layers) });
  const result = timed('pipeline', () => runPipeline(model, steps));
  for (const step of result.steps) ms[step.pass] = step.seconds * 1000;
  timed('encode', () => layOutModel(model, 'out.onnx'));
  // What onnx-fuse does with a header, once each.
  ms['total'] = decoded + (ms['pipeline'] as number) + (ms['encode'] as number);
  return { ms, fused: factsOf(result, concatFfn).length, nodesAfter: model.graph.nodeCount };
}

function measure(folder: string, layers: number, rounds: number): Row {
  const path = join(folder, `header-${layers}.onnx`);
  const facts = makeHeader(path, layers);
  let best = measureOnce(path, layers);
  for (let round = 1; round < rounds; round++) {
    const next = measureOnce(path, layers);
    const ms = Object.fromEntries(
      Object.entries(best.ms).map(([phase, each]) => [phase, Math.min(each, next.ms[phase] as number)]),
    );
    best = { ...best, ms };
  }
  return { ...facts, ...best };
}

function main(): void {
  const { values } = parseArgs({
    options: { layers: { type: 'string' }, rounds: { type: 'string' }, json: { type: 'string' } },
  });
  const sizes = (values.layers ?? '116,232,464,928').split(',').map(Number);
  const rounds = Number(values.rounds ?? 3);
  const folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-bench-'));
  try {
    // The compiler of the engine has its say before anything is measured.
    measure(folder, 16, rounds);
    const rows = sizes.map((layers) => measure(folder, layers, rounds));
    const [first] = rows as [Row];
    const table = new Table({
      head: ['ms', ...rows.map(({ nodes }) => `${nodes} nodes`), 'last, per node, of first'],
      style: { head: [], border: [], compact: true },
    });
    const last = rows.at(-1) as Row;
    for (const phase of Object.keys(first.ms)) {
      const growth = (last.ms[phase] as number) / last.nodes / ((first.ms[phase] as number) / first.nodes);
      table.push([phase, ...rows.map(({ ms }) => (ms[phase] as number).toFixed(0)), `${growth.toFixed(2)}x`]);
    }
    for (const fact of ['layers', 'tensors', 'headerBytes', 'fused', 'nodesAfter'] as const) {
      table.push([fact, ...rows.map((row) => String(row[fact])), '']);
    }
    console.log(`Node ${process.versions.node}; best of ${rounds}; pipeline includes the verifier after each pass`);
    console.log(table.toString());
    if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

main();
