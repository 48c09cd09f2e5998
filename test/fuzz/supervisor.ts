/**
 * Runs a campaign in child processes. A child that hangs, runs out of memory or crashes costs its case, which is run once
 * more by itself to be sure, and the next child goes on behind it.
 */
import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { decoderCase } from './decoders/case.js';
import type { Failure } from './failure.js';
import { mutatedModel } from './models/case.js';
import type { Kind, Report, Task } from './worker.js';

export interface CampaignRequest {
  readonly kind: Kind;
  readonly seed: number;
  readonly count: number;
  /** Number of the first case. */
  readonly first?: number;
  /** Stop starting cases after this long. */
  readonly seconds?: number;
  /** Folder for failing cases; null writes none. */
  readonly out: string | null;
  readonly onnxruntime: boolean;
  /** A case of a file instead of cases by number. */
  readonly file?: string;
  readonly onProgress?: (summary: Summary) => void;
  /** Milliseconds that a case may take, and that it may take once more alone; for tests. */
  readonly patience?: readonly [usual: number, alone: number];
  /** What runs the cases; for tests. */
  readonly worker?: string;
}

export interface FoundFailure {
  readonly signature: string;
  readonly text: string;
  /** Cases that failed alike; the first is in `file`. */
  readonly cases: number[];
  file: string | null;
}

export interface Summary {
  readonly ran: number;
  readonly counts: Readonly<Record<string, number>>;
  readonly failures: readonly FoundFailure[];
  readonly seconds: number;
}

/** A case that takes longer is taken for one that hangs, and tried once more. */
const USUAL_MS = 10_000;
/** Until the first case begins: a process that starts on a busy machine. */
const STARTING_MS = 180_000;
/** What a case gets that is tried once more: the machine may be busy with other things. */
const ALONE_MS = 100_000;
/** Of a processor, for one case. */
const MOST_SECONDS = 10;
const MOST_BYTES = 500 * 2 ** 20;
/** V8's share of it. */
const HEAP_MIB = 384;
/** Cases of one child: what it collects in passing goes with it. */
const CASES = 1500;

type Death = 'hang' | 'memory' | 'crash';

export async function runCampaign(request: CampaignRequest): Promise<Summary> {
  const began = performance.now();
  const counts: Record<string, number> = {};
  const failures = new Map<string, FoundFailure>();
  let ran = 0;
  const seconds = (): number => (performance.now() - began) / 1000;
  const summary = (): Summary => ({ ran, counts, failures: [...failures.values()], seconds: seconds() });
  const isOver = (): boolean => request.seconds !== undefined && seconds() > request.seconds;
  const fail = (index: number, signature: string, text: string, file: string | null): void => {
    const known = failures.get(signature) ?? { signature, text, cases: [], file };
    known.cases.push(index);
    known.file ??= file;
    failures.set(signature, known);
  };
  const empty = mkdtempSync(join(tmpdir(), 'onnx-fuse-fuzz-'));
  const { kind, seed, out, onnxruntime, file, worker = WORKER } = request;
  const [usual, longest] = request.patience ?? [USUAL_MS, ALONE_MS];
  const base = { kind, seed, out, empty, onnxruntime, known: [], ...(file === undefined ? {} : { file }) };
  const listen = (report: Report): void => {
    if ('at' in report || 'shrinking' in report) return;
    ran++;
    if ('done' in report)
      for (const [name, count] of Object.entries(report.counts)) counts[name] = (counts[name] ?? 0) + count;
    else fail(report.failed, report.failure.signature, report.failure.text, report.file);
    const index = 'done' in report ? report.done : report.failed;
    if (report.seconds > MOST_SECONDS)
      fail(index, 'slow', `it takes ${report.seconds.toFixed(0)} s of a processor`, null);
    request.onProgress?.(summary());
  };
  try {
    const start = request.first ?? 0;
    for (let next = start; next < start + request.count && !isOver(); ) {
      const to = Math.min(next + CASES, start + request.count);
      const { at, death, text, failing } = await runChild(
        worker,
        { ...base, from: next, to, known: [...failures.keys()] },
        listen,
        usual,
        isOver,
      );
      if (death === null) {
        next = at + 1;
        continue;
      }
      next = at + 1;
      if (failing) {
        // It failed without dying, and what was tried to make it smaller died.
        ran++;
        fail(at, failing.signature, failing.text, out === null ? null : keep(request, at, out));
        continue;
      }
      // Once more, alone: a machine that is busy with others looks like a hang, and garbage of other cases like a leak.
      const alone = await runChild(
        worker,
        { ...base, from: at, to: at + 1, known: [...failures.keys()] },
        listen,
        longest,
        () => false,
      );
      if (alone.death !== null) {
        ran++;
        const kept = out === null ? null : keep(request, at, out);
        fail(at, `${alone.death} ${text.split('\n')[0]?.slice(0, 80) ?? ''}`.trim(), alone.text || text, kept);
      }
    }
  } finally {
    rmSync(empty, { recursive: true, force: true });
  }
  return summary();
}

/** Writes a case that cannot be made smaller, because every try may take the process with it. */
function keep({ kind, seed, file }: CampaignRequest, index: number, out: string): string {
  mkdirSync(out, { recursive: true });
  const name = join(out, `${kind}-${seed}-${index}.${kind === 'models' ? 'onnx' : 'json'}`);
  if (file !== undefined) copyFileSync(file, name);
  else if (kind === 'models') writeFileSync(name, mutatedModel(seed, index).bytes);
  else writeFileSync(name, `${JSON.stringify(decoderCase(seed, index), null, 1)}\n`);
  return name;
}

interface Ending {
  /** The last case that was begun. */
  readonly at: number;
  /** Null: it came to its end. */
  readonly death: Death | null;
  readonly text: string;
  /** The failure that was being made smaller. */
  readonly failing: Failure | null;
}

function runChild(
  worker: string,
  task: Task,
  listen: (report: Report) => void,
  longest: number,
  isOver: () => boolean,
): Promise<Ending> {
  const child = spawn(
    process.execPath,
    [`--max-old-space-size=${HEAP_MIB}`, '--enable-source-maps', worker, JSON.stringify(task)],
    { stdio: ['ignore', 'ignore', 'pipe', 'pipe'] },
  );
  const [, , stderr, reports] = child.stdio as unknown as [null, null, Readable, Readable];
  return new Promise((resolve) => {
    let at = task.from;
    let isBusy = true;
    let failing: Failure | null = null;
    let stopped: Death | 'over' | null = null;
    let errors = '';
    let rest = '';
    const stop = (why: Death | 'over'): void => {
      stopped ??= why;
      child.kill('SIGKILL');
    };
    let timer = setTimeout(() => stop('hang'), STARTING_MS);
    stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-4000)));
    reports.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        // What a child said before it heard that it was stopped is said again by the next one.
        if (stopped !== null) break;
        const report = JSON.parse(line) as Report;
        clearTimeout(timer);
        timer = setTimeout(() => stop('hang'), longest);
        isBusy = 'at' in report || 'shrinking' in report;
        failing = 'shrinking' in report ? report.failure : null;
        if ('at' in report) at = report.at;
        else if ('rss' in report && report.rss > MOST_BYTES) stop('memory');
        else listen(report);
        if (!isBusy && isOver()) stop('over');
      }
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      if (stopped === 'over' || (stopped === null && code === 0)) resolve({ at, death: null, text: '', failing: null });
      else if (stopped !== null) resolve({ at, death: stopped, text: stopped, failing });
      else resolve({ at, death: /heap|memory/i.test(errors) ? 'memory' : 'crash', text: errors.trim(), failing });
    });
  });
}

const WORKER = fileURLToPath(new URL('./worker.js', import.meta.url));
