/** Writes a model aside, checks it, and only then puts it in its place. */
import { basename, dirname, join, resolve } from 'node:path';
import { Diagnostic, type SharedFile, type StagedModel, stageModel } from '../../ir/index.js';
import type { FileFact } from './file-fact.js';
import { type Report, unchecked } from './report.js';
import type { FuseRequest } from './request.js';
import type { Stopwatch } from './stopwatch.js';
import type { Transformed } from './transform.js';

/** What was written, and how it stood the checks. */
export interface Written {
  readonly files: readonly FileFact[];
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /** The files of the input that hold weights of the output, too. */
  readonly shared: readonly SharedFile[];
  readonly checks: Report['checks'];
}

/** @throws Diagnostic OF_CHECK_FAILED unless `force`, and what writing and running throw; nothing is left behind then. */
export async function writeChecked(request: FuseRequest, made: Transformed, watch: Stopwatch): Promise<Written> {
  const options = {
    external: request.external,
    maxShardBytes: request.maxShardBytes,
    dataNames: request.dataNames,
    share: request.shareWeights,
    hash: request.hash,
    onProgress: (done: number, total: number) => watch.talk.progress('writing', done, total, 'bytes'),
  };
  const staged = await watch.time('write', () => stageModel(made.model, request.output, options));
  try {
    const checks = await checksOf(request, made, staged, watch);
    await watch.time('commit', () => staged.commit());
    const folder = dirname(resolve(request.output));
    const files = staged.files.map(({ path, bytes, sha256 }) => ({
      path: join(folder, basename(path)),
      bytes,
      sha256,
    }));
    return { files, bytesRead: staged.bytesRead, bytesWritten: staged.bytesWritten, shared: staged.shared, checks };
  } catch (error) {
    await staged.discard();
    throw error;
  }
}

async function checksOf(
  { input, verify, force }: FuseRequest,
  { model, steps, result }: Transformed,
  staged: StagedModel,
  watch: Stopwatch,
): Promise<Report['checks']> {
  if (verify === false) return unchecked('switched off (option verify)');
  if (steps.length === 0) return unchecked('the model is an unchanged copy');
  const check = { input, fused: { location: staged.location(), model }, steps, facts: result.facts, talk: watch.talk };
  // Loaded where something is checked.
  const { checkFused, failureOf } = await import('./check.js');
  try {
    const checks = await watch.time('check', () => checkFused(check));
    const failure = failureOf(checks);
    if (failure && !force) throw failure;
    return checks;
  } catch (error) {
    // A fused model that does not even run is a failed check, and `force` overrides those.
    if (!force || !(error instanceof Diagnostic)) throw error;
    return unchecked(`the check failed: ${error.message}`);
  }
}
