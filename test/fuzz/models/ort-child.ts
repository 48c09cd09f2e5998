/** A process of its own for onnxruntime, which mutated models may crash: loads files, and compares two by running them. */
import { Diagnostic } from '../../../ir/diagnostic.js';
import { openModelBytes } from '../../../ir/disk/model.js';
import { type Candidate, KnownRuns, openSession, toleranceFor, verifyPair } from '../../../runtime/index.js';
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
    const known = new StatedSizes();
    const { worst } = await verifyPair(a, b, { batches: [1], seeds: [1], tokens: [3, 5], threads: 1, known });
    return { loads: true, relative: worst.relative, tolerance: toleranceFor(a.model).relative, fails: known.areWrong };
  } catch (error) {
    // A reference that does not run says nothing.
    if (error instanceof Diagnostic) return { loads: true, why: error.message, fails: IN_A_NODE.test(error.message) };
    throw error;
  }
}

/** What is told of a node that fails: in onnxruntime's words, or in ours. */
const IN_A_NODE = /Non-zero status code returned while running|onnxruntime failed: \S+ '[^']*'(:| applies)/;

/** Sees whether outputs have the sizes that the file states. */
class StatedSizes extends KnownRuns {
  areWrong = false;
  override keep(...[candidate, level, runs]: Parameters<KnownRuns['keep']>): void {
    super.keep(candidate, level, runs);
    for (const { name, type } of candidate.model.graph.outputs) {
      const stated = type?.kind === 'tensor' ? type.shape : null;
      if (!stated) continue;
      for (const { outputs } of runs.results.flatMap(({ steps }) => steps)) {
        const dims: readonly unknown[] = outputs.get(name)?.dims ?? stated;
        const fits = dims.length === stated.length && stated.every((s, i) => typeof s !== 'number' || s === dims[i]);
        this.areWrong ||= !fits;
      }
    }
  }
}
