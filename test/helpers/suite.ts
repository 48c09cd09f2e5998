import { type Callback, type Test, suite as uvuSuite } from 'uvu';

/** uvu's suite, counted: the process fails if a suite never runs, is empty, or has tests added after `run()`. */
export function suite<T = Record<string, unknown>>(name: string, context?: T): Test<T> {
  const inner = context === undefined ? uvuSuite<T>(name) : uvuSuite<T>(name, context);
  const record: SuiteRecord = { name, ran: false, pending: 0, only: 0, skipped: 0, total: 0, passed: 0 };
  suites.push(record);

  const counted =
    (handler: Callback<T>): Callback<T> =>
    async (crumbs) => {
      await handler(crumbs);
      record.passed++;
    };
  const add = (title: string, handler: Callback<T>): void => {
    record.pending++;
    inner(title, counted(handler));
  };
  return Object.assign(add, {
    before: inner.before,
    after: inner.after,
    only(title: string, handler: Callback<T>): void {
      if (process.env['CI'] === 'true') throw new Error(`test.only("${title}") in suite "${name}": not allowed in CI`);
      record.only++;
      inner.only(title, counted(handler));
    },
    skip(): void {
      record.skipped++;
      inner.skip();
    },
    run(): void {
      record.ran = true;
      record.total += record.only || record.pending;
      if (record.only) record.skipped += record.pending;
      record.pending = record.only = 0;
      inner.run();
    },
  });
}

export interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

/** The counts of all suites of this process so far. */
export function tally(): Tally {
  const sum = { passed: 0, failed: 0, skipped: 0 };
  for (const { passed, skipped, total } of suites) {
    sum.passed += passed;
    sum.failed += total - passed;
    sum.skipped += skipped;
  }
  return sum;
}

interface SuiteRecord {
  readonly name: string;
  ran: boolean;
  /** Registered since the last `run()`. */
  pending: number;
  only: number;
  skipped: number;
  total: number;
  passed: number;
}

const suites: SuiteRecord[] = [];

process.on('exit', () => {
  for (const { name, ran, pending, only, total, skipped } of suites) {
    if (!ran) complain(`suite "${name}" never ran: call run() after its last test`);
    else if (pending + only > 0) complain(`suite "${name}" has tests after run(): they never ran`);
    else if (total + skipped === 0) complain(`suite "${name}" has no tests`);
  }
  if (tally().failed > 0) process.exitCode = 1;
});

function complain(message: string): void {
  console.error(message);
  process.exitCode = 1;
}
