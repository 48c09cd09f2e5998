/**
 * The test runner: `node dist/test/run.js [--root DIR] [--minimum N] [--timeout SECONDS] [part of a path ...]`, and
 * `node dist/test/run.js --corpus [FOLDER [part of a path ...]]` for the tests on models of others, which all others leave alone.
 * One child process per test file, so that a crash in native code is a failure of that file alone.
 */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { CORPUS_VARIABLE, findCorpus } from './corpus/folder.js';
import type { Tally } from './helpers/suite.js';

/** A run of everything must have at least this many tests: a suite that vanishes must not go unnoticed. */
const MINIMUM_TESTS = 600;
const MINIMUM_CORPUS_TESTS = 100;
const TIMEOUT_SECONDS = 600;
const PARALLEL = 2;

interface Result extends Tally {
  file: string;
  seconds: number;
  output: string;
  /** Why the file as a whole failed; none if it passed. */
  problem?: string;
}

function findTests(root: string, filters: readonly string[]): string[] {
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' })
    .map((file) => file.replaceAll('\\', '/'))
    .filter((file) => /\.test\.m?js$/.test(file) && !file.startsWith('corpus/'))
    .sort();
  for (const filter of filters) {
    if (!files.some((file) => file.includes(filter))) throw new Error(`no test file matches "${filter}"`);
  }
  return filters.length === 0 ? files : files.filter((file) => filters.some((filter) => file.includes(filter)));
}

function runFile(root: string, file: string, timeoutSeconds: number): Promise<Result> {
  const started = performance.now();
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--enable-source-maps', RUN_FILE, join(root, file)], {
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    });
    let output = '';
    let report = '';
    let timedOut = false;
    const [, stdout, stderr, reports] = child.stdio as unknown as [null, Readable, Readable, Readable];
    for (const stream of [stdout, stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output += text));
    reports.setEncoding('utf8').on('data', (text: string) => (report += text));
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
      // A grandchild may still hold these open.
      for (const stream of [stdout, stderr, reports]) stream.destroy();
    }, timeoutSeconds * 1000);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const counts: Tally = report === '' ? { passed: 0, failed: 0, skipped: [] } : JSON.parse(report);
      const result: Result = { ...counts, file, output, seconds: (performance.now() - started) / 1000 };
      if (timedOut) result.problem = `stopped after ${timeoutSeconds} s`;
      else if (signal !== null) result.problem = `killed by ${signal}`;
      else if (report === '') result.problem = `ended with exit code ${code} before its tests were done`;
      else if (counts.failed > 0) result.problem = `${counts.failed} failed`;
      else if (counts.passed + counts.skipped.length === 0) result.problem = 'ran no tests';
      else if (code !== 0) result.problem = `exit code ${code}`;
      // A file that fails outside of its tests still counts as a failure.
      if (result.problem !== undefined) result.failed = Math.max(1, counts.failed);
      resolve(result);
    });
  });
}

function print({ file, passed, skipped, seconds, output, problem }: Result): void {
  const time = `${seconds.toFixed(1)} s`;
  if (problem === undefined) {
    console.log(`pass  ${file}  ${passed} tests${skipped.length > 0 ? `, ${skipped.length} skipped` : ''}  ${time}`);
    // What a test has to say also when all is well.
    for (const line of output.match(/^note: .*$/gm) ?? []) console.log(line);
  } else {
    console.log(`${output.trimEnd()}\nFAIL  ${file}  ${problem}  ${time}`);
  }
}

interface Order {
  readonly root: string;
  readonly filters: readonly string[];
  readonly minimum: number;
  readonly timeoutSeconds: number;
}

/** Which tests the command line asks for. Those on the corpus find its folder in the environment. */
function readOrder(): Order {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      corpus: { type: 'boolean', default: false },
      root: { type: 'string' },
      minimum: { type: 'string' },
      timeout: { type: 'string' },
    },
  });
  if (values.corpus) process.env[CORPUS_VARIABLE] = findCorpus(positionals.shift());
  const standard = values.corpus ? MINIMUM_CORPUS_TESTS : MINIMUM_TESTS;
  return {
    root: values.root ?? fileURLToPath(new URL(values.corpus ? './corpus/' : './', import.meta.url)),
    filters: positionals,
    minimum: Number(values.minimum ?? (positionals.length === 0 ? standard : 0)),
    timeoutSeconds: Number(values.timeout ?? TIMEOUT_SECONDS),
  };
}

async function main(): Promise<void> {
  const total: Tally = { passed: 0, failed: 0, skipped: [] };
  try {
    const { root, filters, minimum, timeoutSeconds } = readOrder();
    const waiting = findTests(root, filters);
    const worker = async (): Promise<void> => {
      for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
        const result = await runFile(root, file, timeoutSeconds);
        print(result);
        total.passed += result.passed;
        total.failed += result.failed;
        total.skipped.push(...result.skipped);
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, worker));
    const count = total.passed + total.failed;
    if (count < minimum) throw new Error(`only ${count} tests ran, expected at least ${minimum}`);
  } catch (error) {
    console.log(`FAIL  ${error instanceof Error ? error.message : error}`);
    total.failed++;
  }
  if (total.failed > 0) process.exitCode = 1;
  for (const { test, reason } of total.skipped) console.log(`skipped: ${test}: ${reason}`);
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped.length} skipped`);
}

const RUN_FILE = fileURLToPath(new URL('./helpers/run-file.js', import.meta.url));
await main();
