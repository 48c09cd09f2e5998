/** Ranks in processes of their own, over gloo on this machine: what `torchrun` starts, without its agent, which has words of its own. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { skip } from '../../helpers/suite.js';

/** How a rank ended. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

let python: string | null | undefined;

/** The Python of ONNX_FUSE_PYTHON, else python3, that has what run_ranks.py needs. Skips the test where there is none. */
export function torchPython(): string {
  if (python === undefined) {
    const name = process.env['ONNX_FUSE_PYTHON'] || 'python3';
    const needs = 'import numpy, tokenizers, torch.distributed, onnxruntime; onnxruntime.OrtValue.from_dlpack';
    python = spawnSync(name, ['-c', needs]).status === 0 ? name : null;
  }
  return python ?? skip('there is no Python with torch, onnxruntime and tokenizers (ONNX_FUSE_PYTHON names one)');
}

/** Starts `count` ranks of `folder`; `onStart` gets the processes, to kill one of them, say. */
export async function runRanks(
  folder: string | readonly string[],
  count: number,
  argv: readonly string[],
  onStart: (ranks: readonly ChildProcess[]) => void = () => {},
): Promise<Ended[]> {
  const port = await freePort();
  const ranks = Array.from({ length: count }, (_, rank) => {
    const place = typeof folder === 'string' ? folder : (folder[rank] as string);
    const group = { RANK: rank, LOCAL_RANK: rank, WORLD_SIZE: count, LOCAL_WORLD_SIZE: count };
    const address = { MASTER_ADDR: '127.0.0.1', MASTER_PORT: port, OMP_NUM_THREADS: 1 };
    const numbers = Object.entries({ ...group, ...address }).map(([name, value]) => [name, String(value)]);
    const env = { ...process.env, ...Object.fromEntries(numbers) };
    return spawn(torchPython(), [join(place, 'run_ranks.py'), ...argv], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  });
  const ended = ranks.map(endOf);
  onStart(ranks);
  return Promise.all(ended);
}

function endOf(child: ChildProcess): Promise<Ended> {
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (text: string) => {
      said[name] += text;
    });
  }
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, ...said }));
  });
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** What `run_ranks.py --save` wrote. */
export interface Saved {
  readonly prompt: readonly number[];
  readonly tokens: readonly number[];
  /** Of each step: in segments, in collectives. */
  readonly seconds: readonly (readonly [number, number])[];
  readonly collectives: number;
  readonly logits: Float32Array;
}

export function readSaved(save: string): Saved {
  const bytes = readFileSync(`${save}.npy`);
  const start = 10 + bytes.readUInt16LE(8);
  const logits = new Float32Array(bytes.buffer.slice(bytes.byteOffset + start, bytes.byteOffset + bytes.length));
  return { ...JSON.parse(readFileSync(`${save}.json`, 'utf8')), logits };
}
