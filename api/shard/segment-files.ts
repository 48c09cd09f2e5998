/** Writes a rank as a folder of segments over one file of weights: its model, cut where the ranks must meet. */
import { createHash } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { errors, type Model, openModel, reasonOf, referenceBytes, stageModel } from '../../ir/index.js';
import { chainOf } from '../../runtime/index.js';
import { type Chain, chainFor, rankFolder, segmentName } from './chain-file.js';
import type { FileSum, RankFiles } from './ranks-file.js';

/** The header over all weights of a rank: it is there while the segments are made, and its data file stays. */
const WHOLE = 'weights.onnx';

/** What was written of a rank. */
export interface WrittenSegments {
  readonly files: Pick<RankFiles, 'model' | 'data' | 'sums'>;
  readonly chain: Chain;
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

/**
 * Writes the folder of rank `rank` into `content`. The weights are written once; segments refer to them.
 * @throws Diagnostic OF_CANNOT_FEED, OF_NOT_COMPARABLE, and what writing throws.
 */
export async function writeSegments(
  model: Model,
  content: string,
  rank: number,
  words: Pick<Chain, 'text' | 'ends'>,
  onProgress: (done: number, total: number) => void,
): Promise<WrittenSegments> {
  const name = rankFolder(rank);
  const folder = join(content, name);
  const whole = join(folder, WHOLE);
  await mkdir(folder);
  const staged = await stageModel(model, whole, { external: true, hash: true, onProgress });
  await staged.commit();
  const chain = chainOf(() => openModel(whole), [], name);
  const described = chainFor(openModel(whole), chain, words);
  const data = staged.files.filter(({ path }) => basename(path) !== WHOLE);
  const sums: FileSum[] = data.map(({ path, bytes, sha256 }) => {
    return { file: `${name}/${basename(path)}`, bytes, sha256: sha256 as string };
  });
  let bytesWritten = staged.bytesWritten;
  for (const [index, { file }] of described.segments.entries()) {
    if (file === null) continue;
    const isData = (path: string): boolean => dirname(path) === folder && basename(path) !== WHOLE;
    const bytes = referenceBytes(chain.open(index), folder, isData);
    const path = join(folder, segmentName(index));
    try {
      await writeFile(path, bytes, { flush: true });
    } catch (error) {
      throw errors.writeFailed(path, reasonOf(error));
    }
    bytesWritten += bytes.length;
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    sums.push({ file: `${name}/${file}`, bytes: bytes.length, sha256 });
  }
  await rm(whole);
  return {
    files: { model: name, data: data.map(({ path }) => `${name}/${basename(path)}`), sums },
    chain: described,
    bytesRead: staged.bytesRead,
    bytesWritten,
  };
}
