/** A process of its own for onnxruntime, which mutated models may crash: loads files, and compares two by running them. */
import { Diagnostic } from '../../../ir/diagnostic.js';
import { openModelBytes } from '../../../ir/disk/model.js';
import { openSession, toleranceFor, verifyPair } from '../../../runtime/index.js';
import type { OrtAnswer, OrtQuestion } from './ort.js';

process.on('message', (question: OrtQuestion) => {
  answer(question).then(
    (found) => process.send?.(found),
    (error: unknown) => process.send?.({ loads: false, why: String(error) } satisfies OrtAnswer),
  );
});
process.on('disconnect', () => process.exit(0));

async function answer({ bytes, reference, folder }: OrtQuestion): Promise<OrtAnswer> {
  try {
    const session = await openSession({ bytes, folder }, { optimization: 'disabled', threads: 1 });
    await session.release();
  } catch (error) {
    return { loads: false, why: error instanceof Error ? error.message : String(error) };
  }
  if (!reference) return { loads: true };
  try {
    const [a, b] = [reference, bytes].map((each) => ({
      location: { bytes: each, folder },
      model: openModelBytes(each, folder),
    })) as [Candidate, Candidate];
    const { worst } = await verifyPair(a, b, { batches: [1], seeds: [1], tokens: [3, 5], threads: 1 });
    return { loads: true, relative: worst.relative, tolerance: toleranceFor(a.model).relative };
  } catch (error) {
    // A reference that does not run says nothing.
    if (error instanceof Diagnostic) return { loads: true, why: error.message, fails: IN_A_NODE.test(error.message) };
    throw error;
  }
}

/** What onnxruntime says of a node that fails. */
const IN_A_NODE = /Non-zero status code returned while running/;

type Candidate = Parameters<typeof verifyPair>[0];
