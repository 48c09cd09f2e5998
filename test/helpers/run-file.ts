/** The child process of test/run.ts: loads one test file completely, then runs its suites and reports the counts. */
import { writeSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

declare global {
  var UVU_DEFER: 1;
  var UVU_QUEUE: unknown[][];
}

const REPORT_FD = 3;

const file = process.argv[2];
if (file !== undefined) {
  // uvu reads these when it is loaded: run() then only fills the queue.
  globalThis.UVU_DEFER = 1;
  globalThis.UVU_QUEUE = [[null]];
  const { exec } = await import('uvu');
  const { tally } = await import('./suite.js');
  await import(pathToFileURL(file).href);
  await exec();
  writeSync(REPORT_FD, JSON.stringify(tally()));
}
