/** The process of probe.ts: runs one model, says how it went, and ends. */
import { Diagnostic } from '../../ir/diagnostic.js';
import { openModel } from '../../ir/disk/model.js';
import type { ProbeAnswer, ProbeRequest } from './probe.js';
import { verifyPair } from './verify.js';

async function answerTo({ path, options }: ProbeRequest): Promise<ProbeAnswer> {
  try {
    const candidate = { location: path, model: openModel(path) };
    await verifyPair(candidate, candidate, { ...options, batches: [1], tokens: [4, 4], seeds: [1] });
    return { reason: null };
  } catch (error) {
    if (error instanceof Diagnostic) return { reason: error.text };
    return { fault: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
}

// Started by probe.ts, and only so: imported elsewhere this file does nothing.
if (process.send && process.argv[2] === 'onnx-fuse-probe-worker') {
  process.once('message', (request: ProbeRequest) => {
    void answerTo(request).then((answer) => process.send?.(answer));
  });
}
