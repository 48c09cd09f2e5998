import { type Callback, type Test, suite as uvuSuite } from 'uvu';

export interface Suite<T> extends Pick<Test<T>, 'before' | 'after' | 'only' | 'run'> {
  (title: string, test: Callback<T>): void;
}

/** A test that could not be made here, and why. */
export interface Skipped {
  readonly test: string;
  readonly reason: string;
}

export interface Tally {
  passed: number;
  failed: number;
  skipped: Skipped[];
}

/** What `skip` throws: only `suite` knows it. */
class Skip extends Error {}

/** Ends a test that cannot be made on this machine. It counts as skipped, never as passed, and its name and the reason are printed. */
export function skip(reason: string): never {
  throw new Skip(reason);
}

/** uvu's suite, counted: the process fails if a suite never runs, is empty, or has tests added after `run()`. */
export function suite<T = Record<string, unknown>>(name: string, context?: T): Suite<T> {
  const inner = context === undefined ? uvuSuite<T>(name) : uvuSuite<T>(name, context);
  const record: SuiteRecord = { name, ran: false, pending: [], only: 0, total: 0, passed: 0, skipped: [] };
  suites.push(record);

  const leaveOut = (title: string, reason: string): void => {
    record.skipped.push({ test: `${name}: ${title}`, reason });
    console.log(`skipped: ${name}: ${title}: ${reason}`);
  };
  const counted =
    (title: string, test: Callback<T>): Callback<T> =>
    async (crumbs) => {
      try {
        await test(crumbs);
        record.passed++;
      } catch (error) {
        if (!(error instanceof Skip)) throw error;
        leaveOut(title, error.message);
      }
    };
  const add = (title: string, test: Callback<T>): void => {
    record.pending.push(title);
    inner(title, counted(title, test));
  };
  return Object.assign(add, {
    before: inner.before,
    after: inner.after,
    only(title: string, test: Callback<T>): void {
      if (process.env['CI'] === 'true') throw new Error(`test.only("${title}") in suite "${name}": not allowed in CI`);
      record.only++;
      inner.only(title, counted(title, test));
    },
    run(): void {
      record.ran = true;
      record.total += record.only + record.pending.length;
      if (record.only > 0)
        for (const title of record.pending) leaveOut(title, 'another test is marked as the only one');
      record.pending = [];
      record.only = 0;
      inner.run();
    },
  });
}

/** The counts of all suites of this process so far. */
export function tally(): Tally {
  const sum: Tally = { passed: 0, failed: 0, skipped: [] };
  for (const { passed, skipped, total } of suites) {
    sum.passed += passed;
    sum.failed += total - passed - skipped.length;
    sum.skipped.push(...skipped);
  }
  return sum;
}

interface SuiteRecord {
  readonly name: string;
  ran: boolean;
  /** Titles of the tests registered since the last `run()`. */
  pending: string[];
  only: number;
  total: number;
  passed: number;
  readonly skipped: Skipped[];
}

const suites: SuiteRecord[] = [];

process.on('exit', () => {
  for (const { name, ran, pending, only, total } of suites) {
    if (!ran) complain(`suite "${name}" never ran: call run() after its last test`);
    else if (pending.length + only > 0) complain(`suite "${name}" has tests after run(): they never ran`);
    else if (total === 0) complain(`suite "${name}" has no tests`);
  }
  if (tally().failed > 0) process.exitCode = 1;
});

function complain(message: string): void {
  console.error(message);
  process.exitCode = 1;
}
