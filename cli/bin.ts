#!/usr/bin/env node
/** The executable: everything is in main.ts. */
import { setFlagsFromString } from 'node:v8';
import { handleSignals } from './interrupt.js';
import { main } from './main.js';

// Most commands end before optimised code pays for its compilation, which took a third of the time of `inspect`.
setFlagsFromString('--interrupt-budget=1000000');

// A reader such as head may have enough before we are done.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});
handleSignals();
process.exitCode = await main(process.argv.slice(2));
