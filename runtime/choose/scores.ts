/**
 * Scores of layers: how much a model needs each, measured through gates in one session.
 *
 * With block i dropped, what every later block adds changes: the dependency matrix of FFN Fusion (arXiv 2503.18908, section 5).
 * The paper gives no number of tokens and no mean; here it is the mean of the cosine distance over all positions. The same runs give
 * Puzzle's replace-one score, KL(original || without it) (arXiv 2411.19146). The unchanged run gives LLM-Drop's
 * 1 - cos(X, X + Attn(norm(X))) (arXiv 2406.15786) and ShortGPT's block influence, 1 - cos(block input, block output)
 * (arXiv 2403.03853).
 */
import { GATES, type GatedBranch, type GatePlan } from '../../passes/index.js';
import { Distance } from '../quality/distance.js';
import type { Scores, TokenBatch } from '../quality/forced.js';
import { QualityMeter } from '../quality/quality.js';
import { makeFeeds } from '../run/feeds.js';
import { runtimeErrors } from '../session/errors.js';
import type { Session } from '../session/session.js';
import { toFloat32 } from '../session/tensor.js';
import { type LayerChoice, NO_CHANGE } from './choice.js';
import { type GatedModel, gateFeeds } from './gates.js';

/** Scores per layer, in the order of `layers`; null where the layer has no such branch. */
export interface DetailedScores {
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

/** A layer as its gates know it. */
interface Block {
  readonly layer: number;
  readonly branches: readonly GatedBranch[];
  readonly hasAttention: boolean;
  readonly hasFfn: boolean;
}

/** A run with something of one layer dropped. */
interface Variant {
  /** Index of the block. */
  readonly row: number;
  readonly drops: 'block' | 'attention' | 'ffn';
  readonly choice: LayerChoice;
}

/** What a run gave: next-token scores, and the other outputs that were asked for, by name. */
interface Found {
  readonly scores: Scores;
  readonly outputs: ReadonlyMap<string, Float32Array>;
}

const isAttention = ({ branch }: GatedBranch): boolean => branch.role === 'attention';

function blocksOf({ branches }: GatePlan): Block[] {
  const layers = [...new Set(branches.map(({ layer }) => layer.index))];
  return layers.map((layer) => {
    const own = branches.filter((each) => each.layer.index === layer);
    const hasAttention = own.some(isAttention);
    return { layer, branches: own, hasAttention, hasFfn: !own.every(isAttention) };
  });
}

/** Each block is dropped as a whole, and where it has both, its attention and its FFN alone. */
function variantsOf(blocks: readonly Block[]): Variant[] {
  return blocks.flatMap(({ layer, hasAttention, hasFfn }, row): Variant[] => {
    const [attention, ffn] = [hasAttention ? [layer] : [], hasFfn ? [layer] : []];
    const whole = {
      row,
      drops: 'block',
      choice: { ...NO_CHANGE, removeAttention: attention, removeFfn: ffn },
    } as const;
    if (!hasAttention || !hasFfn) return [whole];
    return [
      whole,
      { row, drops: 'attention', choice: { ...NO_CHANGE, removeAttention: attention } },
      { row, drops: 'ffn', choice: { ...NO_CHANGE, removeFfn: ffn } },
    ];
  });
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
): Promise<DetailedScores> {
  const sums = new ScoreSums(blocksOf(gated.plan));
  const variants = variantsOf(sums.blocks);
  const total = batches.length * (variants.length + 1);
  let done = 0;
  for (const batch of batches) {
    const run = (choice: LayerChoice, names: readonly string[]): Promise<Found> => {
      onRun(done++, total);
      return runGated(gated, session, batch, choice, names);
    };
    const original = await run(NO_CHANGE, [GATES.stream, ...sums.outputsFrom(0)]);
    const added = sums.addOriginal(original, batch);
    for (const variant of variants) {
      const later = variant.drops === 'block' ? sums.outputsFrom(variant.row + 1) : [];
      sums.addVariant(variant, batch, original, await run(variant.choice, later), added);
    }
  }
  return sums.result();
}

/** Runs a batch with the gates of a choice. */
async function runGated(
  { plan, signature }: GatedModel,
  session: Pick<Session, 'run'>,
  { sequences }: TokenBatch,
  choice: LayerChoice,
  names: readonly string[],
): Promise<Found> {
  const { logits } = signature;
  if (logits === null) throw runtimeErrors.notComparable('logits', 'the model gives no next-token scores');
  const feeds = new Map([...makeFeeds(signature, { tokenIds: sequences }).tensors, ...gateFeeds(plan, choice)]);
  const found = await session.run(feeds, [logits, ...names]);
  const outputs = new Map([...found].map(([name, tensor]) => [name, toFloat32(tensor)]));
  const values = outputs.get(logits) as Float32Array;
  const [rows, positions] = [sequences.length, sequences[0]?.length ?? 0];
  return { scores: { logits: values, shape: [rows, positions, values.length / rows / positions] }, outputs };
}

/** What the unchanged run of a batch adds to the stream, block by block, in rows of `width`. */
interface Added {
  readonly blocks: readonly Float32Array[];
  readonly width: number;
}

/** All scores, added up over batches. */
class ScoreSums {
  readonly #dependency: readonly (readonly Distance[])[];
  readonly #similarity: readonly Distance[];
  readonly #influence: readonly Distance[];
  /** By row and what is dropped. */
  readonly #meters = new Map<string, QualityMeter>();

  constructor(readonly blocks: readonly Block[]) {
    this.#dependency = blocks.map(() => blocks.map(() => new Distance()));
    this.#similarity = blocks.map(() => new Distance());
    this.#influence = blocks.map(() => new Distance());
  }

  /** Names of what the branches of block `row` and later ones add. */
  outputsFrom(row: number): string[] {
    return this.blocks.slice(row).flatMap(({ branches }) => branches.map(({ output }) => output));
  }

  /** Takes in the unchanged run: the stream before and after each attention and each block. */
  addOriginal({ outputs }: Found, { sequences }: TokenBatch): Added {
    const stream = Float32Array.from(outputs.get(GATES.stream) as Float32Array);
    const width = stream.length / sequences.length / (sequences[0]?.length ?? 1);
    for (const [row, { branches }] of this.blocks.entries()) {
      const input = Float32Array.from(stream);
      for (const each of branches) {
        const before = isAttention(each) ? Float32Array.from(stream) : null;
        addTo(stream, outputs.get(each.output) as Float32Array);
        if (before) this.#similarity[row]?.add(before, stream, width);
      }
      this.#influence[row]?.add(input, stream, width);
    }
    return { blocks: this.blocks.map((block) => sumOf(block, outputs)), width };
  }

  /** Takes in a run with something dropped: its KL, and of a whole block what it changes in the later ones. */
  addVariant({ row, drops }: Variant, batch: TokenBatch, original: Found, found: Found, added: Added): void {
    const key = `${drops} ${row}`;
    const meter = this.#meters.get(key) ?? new QualityMeter();
    this.#meters.set(key, meter);
    meter.add(batch, original.scores, found.scores);
    if (drops !== 'block') return;
    for (const [j, block] of this.blocks.entries()) {
      if (j > row)
        this.#dependency[row]?.[j]?.add(added.blocks[j] as Float32Array, sumOf(block, found.outputs), added.width);
    }
  }

  result(): DetailedScores {
    const kl = (drops: Variant['drops'], row: number): number | null =>
      this.#meters.get(`${drops} ${row}`)?.result().kl ?? null;
    // Where it is all that its block has, dropping it is dropping the block.
    const single = (drops: 'attention' | 'ffn', has: (block: Block) => boolean): (number | null)[] =>
      this.blocks.map((block, row) => (has(block) ? (kl(drops, row) ?? kl('block', row)) : null));
    return {
      layers: this.blocks.map(({ layer }) => layer),
      dependency: this.#dependency.map((row) => row.map((each) => each.mean)),
      attentionSimilarity: this.blocks.map(({ hasAttention }, row) =>
        hasAttention ? (this.#similarity[row]?.mean ?? null) : null,
      ),
      blockInfluence: this.#influence.map((each) => each.mean),
      withoutAttention: single('attention', ({ hasAttention }) => hasAttention),
      withoutFfn: single('ffn', ({ hasFfn }) => hasFfn),
      withoutBlock: this.blocks.map((_, row) => kl('block', row)),
    };
  }
}

/** What all branches of a block add. */
function sumOf({ branches }: Block, outputs: ReadonlyMap<string, Float32Array>): Float32Array {
  const [first, ...rest] = branches.map(({ output }) => outputs.get(output) as Float32Array);
  if (!first || rest.length === 0) return first ?? new Float32Array(0);
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
