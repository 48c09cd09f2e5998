/** Stands for worker.ts in the tests of its supervisor: cases that come to the ends that real ones must not come to. */
import { writeSync } from 'node:fs';
import type { Report, Task } from './worker.js';

const say = (report: Report): void => void writeSync(3, `${JSON.stringify(report)}\n`);
const { from, to } = JSON.parse(process.argv[2] ?? '') as Task;
for (let index = from; index < to; index++) {
  say({ at: index });
  if (index === 1) process.kill(process.pid, 'SIGSEGV');
  if (index === 3) for (;;);
  if (index === 5) {
    const held: unknown[] = [];
    // In steps that are small: touching new memory is what takes time on a busy machine.
    for (;;) held.push(new Array(1e6).fill(held.length));
  }
  if (index === 6) {
    say({ failed: index, failure: { signature: 'wrong', text: 'wrong' }, file: null, rss: 0, seconds: 0 });
    continue;
  }
  say({ done: index, counts: { cases: 1 }, rss: index === 7 ? 2 ** 30 : 0, seconds: index === 8 ? 11 : 0 });
}
