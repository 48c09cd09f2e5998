/** Being told to stop: what was begun is removed, and whatever stood at the output is as it was. */
import { removeTemporaries, resumable } from '../ir/disk/temporaries.js';

/** Exit codes are 128 and the number of the signal, as shells have it. */
const SIGNALS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

/** Ends the process on Ctrl-C and its like. A second signal in a row ends it at once. */
export function handleSignals(): void {
  for (const [signal, code] of Object.entries(SIGNALS)) {
    process.once(signal, () => {
      const isWriting = removeTemporaries() > 0;
      const kept = [...resumable].map(
        (path) => `; what was measured is in ${path}, and the same command goes on from there`,
      );
      process.stderr.write(
        `onnx-fuse: interrupted${isWriting ? '; the output is as it was before' : ''}${kept.join('')}\n`,
      );
      process.exit(code);
    });
  }
}
