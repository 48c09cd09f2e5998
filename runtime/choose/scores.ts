/**
 * Scores of layers: how much a model needs each, measured through gates in one session.
 *
 * With block i dropped, what every later block adds changes: the dependency matrix of FFN Fusion (arXiv 2503.18908, section 5).
 * The paper gives no number of tokens and no mean; here it is the mean of the cosine distance over all positions. The same runs give
 * Puzzle's replace-one score, KL(original || without it) (arXiv 2411.19146). The unchanged run gives LLM-Drop's
 * 1 - cos(X, X + Attn(norm(X))) (arXiv 2406.15786) and ShortGPT's block influence, 1 - cos(block input, block output)
 * (arXiv 2403.03853).
 */
import { GATES } from '../../passes/index.js';
import type { Scores, TokenBatch } from '../quality/forced.js';
import { QualityMeter } from '../quality/quality.js';
import { makeFeeds } from '../run/feeds.js';
import { runtimeErrors } from '../session/errors.js';
import type { Session } from '../session/session.js';
import { type TensorMap, toFloat32 } from '../session/tensor.js';
import { type GatedModel, gateFeeds, type LayerChoice, NO_CHANGE } from './gates.js';

/** Scores per layer, in the order of `layers`; null where the layer has no such branch. */
export interface PlanScores {
  readonly layers: readonly number[];
  /** `dependency[i][j]`: mean cosine distance of what block j adds, with block i dropped; 0 for j <= i. */
  readonly dependency: readonly (readonly number[])[];
  /** 1 - cos(X, X + Attn(norm(X))). */
  readonly attentionSimilarity: readonly (number | null)[];
  /** 1 - cos(block input, block output). */
  readonly blockInfluence: readonly number[];
  /** KL(original || without it). */
  readonly withoutAttention: readonly (number | null)[];
  readonly withoutFfn: readonly (number | null)[];
  readonly withoutBlock: readonly (number | null)[];
}

/** The choice that drops a block. */
function without(layer: number, attention: boolean, ffn: boolean): LayerChoice {
  return { ...NO_CHANGE, removeAttention: attention ? [layer] : [], removeFfn: ffn ? [layer] : [] };
}

/** Mean of the cosine distances of rows, added up over batches. */
class Distance {
  #sum = 0;
  #count = 0;
  /** Rows of `width`; a row of zeros has no direction and is left out. */
  add(a: Float32Array, b: Float32Array, width: number): void {
    for (let start = 0; start + width <= a.length; start += width) {
      let [dot, left, right] = [0, 0, 0];
      for (let i = start; i < start + width; i++) {
        const [x, y] = [a[i] as number, b[i] as number];
        dot += x * y;
        left += x * x;
        right += y * y;
      }
      if (left === 0 || right === 0) continue;
      this.#sum += 1 - dot / Math.sqrt(left * right);
      this.#count++;
    }
  }
  get mean(): number {
    return this.#count === 0 ? 0 : Math.max(0, this.#sum / this.#count);
  }
}

/**
 * Measures all scores of a gated model on batches: per batch one run of the model as it is, one for each dropped block, and one each
 * for its attention and its FFN where it has both. Memory: what all branches add for one batch, which is `scoreRows` rows at most.
 * @throws Diagnostic OF_RUNTIME, OF_CANNOT_FEED, OF_NOT_COMPARABLE.
 */
export async function measureScores(
  gated: GatedModel,
  session: Pick<Session, 'run'>,
  batches: readonly TokenBatch[],
  onRun: (done: number, total: number) => void = () => {},
): Promise<PlanScores> {
  const { plan, signature } = gated;
  const layers = [...new Set(plan.branches.map(({ layer }) => layer.index))];
  const branchesOf = (layer: number) => plan.branches.filter((each) => each.layer.index === layer);
  const has = (layer: number, isAttention: boolean): boolean =>
    branchesOf(layer).some(({ branch }) => (branch.role === 'attention') === isAttention);
  const logits = signature.logits;
  if (logits === null) throw runtimeErrors.notComparable('logits', 'the model gives no next-token scores');

  const dependency = layers.map(() => layers.map(() => new Distance()));
  const similarity = layers.map(() => new Distance());
  const influence = layers.map(() => new Distance());
  const meters = new Map<string, QualityMeter>();
  const variants = layers.flatMap((layer, i) => [
    { key: `block ${layer}`, layer, row: i, choice: without(layer, has(layer, true), has(layer, false)) },
    ...(has(layer, true) && has(layer, false)
      ? [
          { key: `attention ${layer}`, layer, row: null, choice: without(layer, true, false) },
          { key: `ffn ${layer}`, layer, row: null, choice: without(layer, false, true) },
        ]
      : []),
  ]);
  const total = batches.length * (variants.length + 1);
  let done = 0;

  for (const batch of batches) {
    const run = async (choice: LayerChoice, names: readonly string[]): Promise<Map<string, Float32Array>> => {
      onRun(done++, total);
      const feeds: TensorMap = new Map([
        ...makeFeeds(signature, { tokenIds: batch.sequences }).tensors,
        ...gateFeeds(plan, choice),
      ]);
      const outputs = await session.run(feeds, names);
      return new Map([...outputs].map(([name, tensor]) => [name, toFloat32(tensor)]));
    };
    const scoresOf = (outputs: ReadonlyMap<string, Float32Array>): Scores => {
      const values = outputs.get(logits) as Float32Array;
      const [rows, positions] = [batch.sequences.length, batch.sequences[0]?.length ?? 0];
      return { logits: values, shape: [rows, positions, values.length / rows / positions] };
    };
    const added = plan.branches.map(({ output }) => output);
    const original = await run(NO_CHANGE, [logits, GATES.stream, ...added]);
    const blocks = layers.map((layer) =>
      sumOf(branchesOf(layer).map(({ output }) => original.get(output) as Float32Array)),
    );

    // The stream before and after each branch and block.
    const stream = Float32Array.from(original.get(GATES.stream) as Float32Array);
    const width = stream.length / batch.sequences.length / (batch.sequences[0]?.length ?? 1);
    for (const [i, layer] of layers.entries()) {
      const input = Float32Array.from(stream);
      for (const { branch, output } of branchesOf(layer)) {
        const before = branch.role === 'attention' ? Float32Array.from(stream) : null;
        addTo(stream, original.get(output) as Float32Array);
        if (before) similarity[i]?.add(before, stream, width);
      }
      influence[i]?.add(input, stream, width);
    }

    for (const { key, row, choice } of variants) {
      const later = row === null ? [] : layers.slice(row + 1);
      const names = later.flatMap((layer) => branchesOf(layer).map(({ output }) => output));
      const outputs = await run(choice, [logits, ...names]);
      const meter = meters.get(key) ?? new QualityMeter();
      meters.set(key, meter);
      meter.add(batch, scoresOf(original), scoresOf(outputs));
      for (const [j, layer] of layers.entries()) {
        if (row === null || j <= row) continue;
        const changed = sumOf(branchesOf(layer).map(({ output }) => outputs.get(output) as Float32Array));
        dependency[row]?.[j]?.add(blocks[j] as Float32Array, changed, width);
      }
    }
  }

  const klOf = (key: string): number | null => meters.get(key)?.result().kl ?? null;
  const single = (layer: number, isAttention: boolean): number | null =>
    !has(layer, isAttention) ? null : (klOf(`${isAttention ? 'attention' : 'ffn'} ${layer}`) ?? klOf(`block ${layer}`));
  return {
    layers,
    dependency: dependency.map((row) => row.map((each) => each.mean)),
    attentionSimilarity: layers.map((layer, i) => (has(layer, true) ? (similarity[i]?.mean ?? null) : null)),
    blockInfluence: influence.map((each) => each.mean),
    withoutAttention: layers.map((layer) => single(layer, true)),
    withoutFfn: layers.map((layer) => single(layer, false)),
    withoutBlock: layers.map((layer) => klOf(`block ${layer}`)),
  };
}

function sumOf(parts: readonly Float32Array[]): Float32Array {
  const [first, ...rest] = parts;
  if (!first) return new Float32Array(0);
  if (rest.length === 0) return first;
  const sum = Float32Array.from(first);
  for (const part of rest) addTo(sum, part);
  return sum;
}

function addTo(sum: Float32Array, part: Float32Array): void {
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (part[i] as number);
}

/** Bytes of what the branches add that may be in memory at a time. */
const SCORE_BYTES = 256 * 2 ** 20;

/** Rows of `length` tokens that fit a batch for scores: what every branch adds is held twice. */
export function scoreRows(gated: GatedModel, hidden: number, length: number): number {
  return Math.max(1, Math.floor(SCORE_BYTES / (8 * gated.plan.branches.length * hidden * length)));
}
