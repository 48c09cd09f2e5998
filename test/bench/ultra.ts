/**
 * The largest published fusions at full size: the graph before the fusion, over a weight file that is mostly holes.
 *
 *     npm run bench:ultra -- [--model ultra|super] [--hidden N] [--tp N] [--folder DIR] [--json FILE]
 *
 * Every tensor has a few real values here and there, every norm all of them. The folder must be on a file system that
 * keeps holes; nothing is written unless a rehearsal shows that it does and that onnx-fuse does too. Afterwards the fused
 * weights are looked into: each real value of the FFNs must be where it belongs, times its gamma, computed here anew from
 * the input's bytes, and what is zero must still be.
 */
import { spawn } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { parameterCount } from '../../api/fuse/figures.js';
import { type ShardReport, tokenCost } from '../../api/shard/shard.js';
import { openModel, type Weight } from '../../ir/index.js';
import { factsOf, layersOf, parseLayers, runPipeline, shardSteps, shardTensorParallel } from '../../passes/index.js';
import { namedDevice } from '../../runtime/index.js';
import { hashOf, mix } from '../../runtime/run/random.js';
import { BIN } from '../helpers/paths.js';
import { buildDecoder, headerBytes, type Placed } from './decoder.js';
import { type Published, superModel, ultra } from './published.js';

/** Real values of a tensor: so many patches of so many elements. */
const PATCHES = 6;
const PATCH = 48;
/** Zeros looked at per fused tensor. */
const ZEROS = 200;

/** Bits of a bfloat16 between 0.5 and 2, of either sign. */
function someBits(seed: number, i: number): number {
  const word = mix(seed, i);
  return ((word & 1) << 15) | (0x3f00 + (word >>> 24));
}

/** First elements of the patches of a tensor: its first and last values are real. */
function patchesOf({ name, dims }: Pick<Placed, 'name' | 'dims'>): number[] {
  const count = dims.reduce((a, b) => a * b, 1);
  const room = Math.max(count - PATCH, 0);
  const inner = Array.from({ length: PATCHES - 2 }, (_, i) => Math.floor((mix(hashOf(name), i) / 2 ** 32) * room));
  return [...new Set([0, ...inner, room])];
}

const isNorm = (name: string): boolean => name.includes('norm');

function writeSparse(path: string, tensors: readonly Placed[], dataBytes: number): void {
  const file = openSync(path, 'w');
  ftruncateSync(file, dataBytes);
  for (const tensor of tensors) {
    const { name, offset, dims } = tensor;
    const count = dims.reduce((a, b) => a * b, 1);
    const [starts, length] = isNorm(name) ? [[0], count] : [patchesOf(tensor), Math.min(PATCH, count)];
    for (const start of starts) {
      // Zero times a negative gamma is -0, which is no hole.
      const signs = isNorm(name) ? 0x7fff : 0xffff;
      const bits = Uint16Array.from({ length }, (_, i) => someBits(hashOf(name), start + i) & signs);
      writeSync(file, new Uint8Array(bits.buffer), 0, 2 * length, offset + 2 * start);
    }
  }
  closeSync(file);
}

interface Run {
  readonly seconds: number;
  readonly rssBytes: number;
  readonly stdout: string;
}

function runCli(argv: readonly string[]): Promise<Run> {
  const began = performance.now();
  const child = spawn(process.execPath, [BIN, ...argv], { stdio: ['ignore', 'pipe', 'inherit'] });
  let stdout = '';
  let rssBytes = 0;
  child.stdout.on('data', (chunk) => (stdout += chunk));
  const watch = setInterval(() => {
    const status = readOrNothing(`/proc/${child.pid}/status`);
    rssBytes = Math.max(rssBytes, 1024 * Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0));
  }, 50);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      clearInterval(watch);
      if (code === 0) resolve({ seconds: (performance.now() - began) / 1000, rssBytes, stdout });
      else reject(new Error(`onnx-fuse ended with ${code}`));
    });
  });
}

function readOrNothing(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** A file read here and there, without any of onnx-fuse's machinery. */
class Bytes {
  readonly #file: number;
  readonly #buffer = new Uint8Array(2);
  constructor(path: string) {
    this.#file = openSync(path, 'r');
  }
  /** Bits of the 16-bit element at byte `at`. */
  bits(at: number): number {
    if (readSync(this.#file, this.#buffer, 0, 2, at) !== 2) throw new Error(`nothing at byte ${at}`);
    return (this.#buffer[0] as number) | ((this.#buffer[1] as number) << 8);
  }
  close(): void {
    closeSync(this.#file);
  }
}

const word = new DataView(new ArrayBuffer(4));
function bfloat16(bits: number): number {
  word.setUint32(0, bits << 16);
  return word.getFloat32(0);
}
/** Rounds to nearest, ties to even; products of two bfloat16 are exact in float32. */
function bitsOf(value: number): number {
  word.setFloat32(0, value);
  const all = word.getUint32(0);
  return ((all + 0x7fff + ((all >>> 16) & 1)) >>> 16) & 0xffff;
}

interface Checked {
  readonly values: number;
  readonly zeros: number;
}

/** Compares the fused tensors of every run with what the input's bytes say. Throws on the first difference. */
function compareFused({ runs, spec }: Published, tensors: readonly Placed[], input: string, output: string): Checked {
  const { hidden, layers } = spec;
  const placed = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const find = (name: string): Placed => placed.get(name) ?? fail(`no tensor ${name}`);
  const { graph } = openModel(output);
  const offsetOf = (name: string): number => {
    const weight: Weight | null | undefined = graph.value(name)?.initializer?.weight;
    return weight?.op === 'source' ? weight.offset : fail(`no tensor ${name} in a file`);
  };
  const [before, after] = [new Bytes(`${input}.data`), new Bytes(`${output}.data`)];
  let values = 0;
  let zeros = 0;
  for (const run of runs.split(',')) {
    const members = parseLayers(run);
    const widths = members.map((i) => layers[i]?.width ?? 0);
    const total = widths.reduce((sum, width) => sum + width, 0);
    for (const [part, role] of [
      ['gate_proj', 'gate'],
      ['up_proj', 'up'],
      ['down_proj', 'down'],
    ] as const) {
      const fused = offsetOf(`fused.layers.${run}.ffn.${role}.weight`);
      let left = 0;
      for (const [m, layer] of members.entries()) {
        const width = widths[m] as number;
        const tensor = find(`model.layers.${layer}.mlp.${part}.weight`);
        const gamma = find(`model.layers.${layer}.post_attention_layernorm.weight`);
        const check = (element: number): boolean => {
          const columns = role === 'down' ? hidden : width;
          const [row, column] = [Math.floor(element / columns), element % columns];
          const bits = before.bits(tensor.offset + 2 * element);
          const scaled =
            role === 'down' ? bits : bitsOf(bfloat16(bits) * bfloat16(before.bits(gamma.offset + 2 * row)));
          const at = role === 'down' ? (left + row) * hidden + column : row * total + left + column;
          const found = after.bits(fused + 2 * at);
          if (found !== scaled)
            fail(`${run} ${role}, layer ${layer}, [${row}, ${column}]: ${found} instead of ${scaled}`);
          return (bits & 0x7fff) !== 0;
        };
        for (const start of patchesOf(tensor)) {
          for (let i = 0; i < PATCH; i++) if (check(start + i)) values++;
        }
        for (let i = 0; i < ZEROS; i++) if (!check(Math.floor((mix(layer, i) / 2 ** 32) * hidden * width))) zeros++;
        left += width;
      }
    }
  }
  // Tensors that nothing happened to.
  for (const tensor of tensors) {
    const { name, offset } = tensor;
    if (graph.value(name)?.initializer?.weight?.op !== 'source') continue;
    const at = offsetOf(name);
    for (const start of isNorm(name) ? [0, hidden - PATCH] : patchesOf(tensor)) {
      for (let i = 0; i < PATCH; i++) {
        if (after.bits(at + 2 * (start + i)) !== before.bits(offset + 2 * (start + i)))
          fail(`${name}, element ${start + i}`);
        values++;
      }
    }
  }
  before.close();
  after.close();
  return { values, zeros };
}

function fail(why: string): never {
  throw new Error(why);
}

function fileSizes(path: string): { readonly bytes: number; readonly onDisk: number } {
  const { size, blocks } = statSync(path);
  return { bytes: size, onDisk: blocks * 512 };
}

/** The fused model cut over ranks: time, memory, bytes, and what a token costs before and after the fusion. */
async function measureRanks(input: string, output: string, folder: string, tp: number) {
  const ranks = join(folder, 'ranks');
  const argv = ['shard', output, ranks, '--tp', String(tp), '--no-verify', '--json', '--quiet'];
  const run = await runCli(argv);
  const report = JSON.parse(run.stdout) as ShardReport;
  const onDisk = report.rankFiles.flatMap(({ data }) => data.map((name) => fileSizes(join(ranks, name))));
  rmSync(ranks, { recursive: true });
  const device = tp === 8 ? namedDevice('h100x8') : null;
  const costs = [input, output].map((path) => {
    const model = openModel(path);
    const result = runPipeline(model, shardSteps({ ranks: tp, style: 'ort', lmHead: 'gather', refuse: false }, 0));
    const [facts] = factsOf(result, shardTensorParallel);
    return facts ? tokenCost(model, facts, tp, device) : null;
  });
  return {
    tp,
    seconds: run.seconds,
    rssBytes: run.rssBytes,
    weights: report.rankFiles.map(({ weights }) => weights),
    onDisk: onDisk.reduce((sum, file) => sum + file.onDisk, 0),
    token: { before: costs[0], after: costs[1] },
  };
}

async function measure(published: Published, folder: string, tp: number | null) {
  const [input, output] = [join(folder, 'in.onnx'), join(folder, 'out.onnx')];
  const { model, tensors, dataBytes } = buildDecoder(published.spec);
  writeFileSync(input, headerBytes(model, 'in.onnx.data'));
  writeSparse(`${input}.data`, tensors, dataBytes);
  const run = await runCli([input, output, '--runs', published.runs, '--no-verify']);
  console.log(run.stdout);
  const fused = openModel(output);
  const widths = new Map(layersOf(fused).layers.map(({ label, ffn }) => [label, ffn?.ffn.width]));
  const found = published.runs.split(',').map((label) => widths.get(label));
  if (found.join() !== published.fusedWidths.join()) fail(`fused widths ${found}, expected ${published.fusedWidths}`);
  const result = {
    model: published.name,
    hidden: published.spec.hidden,
    layers: published.spec.layers.length,
    withoutAttention: published.spec.layers.filter(({ attention }) => !attention).length,
    fusedWidths: found,
    parameters: { before: parameterCount(model), after: parameterCount(fused) },
    seconds: run.seconds,
    rssBytes: run.rssBytes,
    input: fileSizes(`${input}.data`),
    output: fileSizes(`${output}.data`),
    compared: compareFused(published, tensors, input, output),
    ranks: tp === null ? null : await measureRanks(input, output, folder, tp),
  };
  rmSync(output);
  rmSync(`${output}.data`);
  return result;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: 'ultra' },
      hidden: { type: 'string' },
      tp: { type: 'string' },
      folder: { type: 'string', default: tmpdir() },
      json: { type: 'string' },
    },
  });
  const make = values.model === 'super' ? superModel : ultra;
  const folder = mkdtempSync(join(values.folder, 'onnx-fuse-bench-'));
  try {
    const rehearsal = await measure(make(128), folder, null);
    const kept = rehearsal.output.onDisk / rehearsal.output.bytes;
    console.log(`rehearsal: ${(100 * kept).toFixed(1)} % of the output is on the disk, the rest are holes`);
    if (kept > 0.5) fail('holes do not stay holes here: at full size this would fill the disk');
    const tp = values.tp === undefined ? null : Number(values.tp);
    const result = await measure(values.hidden === undefined ? make() : make(Number(values.hidden)), folder, tp);
    console.log(JSON.stringify(result, null, 2));
    if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, null, 2)}\n`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

await main();
