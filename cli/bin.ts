#!/usr/bin/env node
/** The executable: everything is in main.ts. */
import { handleSignals } from './interrupt.js';
import { main } from './main.js';

// A reader such as head may have enough before we are done.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});
handleSignals();
process.exitCode = await main(process.argv.slice(2));
