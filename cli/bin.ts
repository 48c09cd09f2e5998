#!/usr/bin/env node
/** The executable: everything is in main.ts. */
import { handleSignals } from './interrupt.js';
import { main } from './main.js';

// A reader such as head may have enough before we are done.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit();
  process.stderr.write(
    `onnx-fuse: OF_WRITE standard output: it cannot be written: ${error.message}; check space and permissions\n`,
  );
  process.exit(1);
});
handleSignals();
process.exitCode = await main(process.argv.slice(2));
