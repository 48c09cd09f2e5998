/** `verify --data`: quality of a changed model on text, both models told the true tokens, and whether it is good enough. */
import { errors, openModel } from '../ir/index.js';
import {
  ForcedScorer,
  measureQuality,
  type Quality,
  readSignature,
  tokenBatches,
  weightBytes,
  withSession,
} from '../runtime/index.js';
import type { Talk } from './talk.js';
import { codecFor } from './text-codec.js';
import { loadTokenData, type TokenDataOptions } from './token-data.js';

export interface DataRequest extends Pick<TokenDataOptions, 'length' | 'maxTokens'> {
  readonly data: string;
  readonly tokenizer?: string;
}

export interface DataQuality {
  readonly source: string;
  readonly tokens: number;
  readonly originalPerplexity: number;
  readonly quality: Quality;
}

/** What the user asks for; what is not given is not judged. */
export interface QualityBudget {
  readonly maxKl?: number | undefined;
  readonly maxPplIncrease?: number | undefined;
  readonly minTop1?: number | undefined;
}

/**
 * Runs both models on the text, with both sessions open.
 * @throws Diagnostic OF_TOKEN_DATA, OF_TOKENIZER, OF_NO_RUNTIME, OF_RUNTIME, OF_CANNOT_FEED or OF_NOT_COMPARABLE.
 */
export async function qualityOnData(a: string, b: string, request: DataRequest, talk: Talk): Promise<DataQuality> {
  const models = [openModel(a), openModel(b)] as const;
  const signatures = [readSignature(models[0]), readSignature(models[1])] as const;
  const { vocabulary } = signatures[0];
  const codec = await codecFor(a, vocabulary, request.tokenizer);
  const text = await loadTokenData(request.data, { ...request, vocabulary, codec });
  const batches = tokenBatches(text.sequences, signatures[0]);
  const options = (at: 0 | 1) => ({ optimization: 'disabled', weightBytes: weightBytes(models[at]) }) as const;
  const measured = await withSession(a, options(0), (left) =>
    withSession(b, options(1), (right) => {
      const [original, changed] = [new ForcedScorer(left, signatures[0]), new ForcedScorer(right, signatures[1])];
      return measureQuality(
        batches,
        (batch) => original.scores(batch),
        (batch) => changed.scores(batch),
        (done, total) => talk.progress('measuring on text', done, total),
      );
    }),
  );
  return { source: text.source, tokens: text.tokens, ...measured };
}

/** @throws Diagnostic OF_QUALITY for the first limit that is not kept; figures that are no numbers keep none. */
export function checkBudget({ quality }: DataQuality, { maxKl, maxPplIncrease, minTop1 }: QualityBudget): void {
  const over = (name: string, found: number, limit: number) =>
    errors.quality(`${name} is ${found.toPrecision(4)}`, `${limit}`);
  if (maxKl !== undefined && !(quality.kl <= maxKl)) throw over('KL', quality.kl, maxKl);
  if (maxPplIncrease !== undefined && !(quality.perplexityIncrease <= maxPplIncrease)) {
    throw over('perplexity increase', quality.perplexityIncrease, maxPplIncrease);
  }
  if (minTop1 !== undefined && !(quality.top1 >= minTop1)) throw over('top-1 agreement', quality.top1, minTop1);
}

/** A few lines for people; KL by position in eight stretches. */
export function renderQuality({ source, originalPerplexity, quality }: DataQuality): string {
  const by = quality.klByPosition;
  const each = Math.max(1, Math.ceil(by.length / 8));
  const lines = [
    `on ${source}: ${quality.positions} positions, told the true tokens`,
    `  KL           mean ${quality.kl.toPrecision(4)}, max ${quality.maxKl.toPrecision(4)} nats`,
    `  perplexity   ${originalPerplexity.toFixed(4)} -> ${quality.perplexity.toFixed(4)} (${(100 * quality.perplexityIncrease).toFixed(2)} %)`,
    `  agreement    top-1 ${(100 * quality.top1).toFixed(2)} %, top-5 ${(100 * quality.top5).toFixed(2)} %`,
    '  KL by position',
  ];
  for (let at = 0; at < by.length; at += each) {
    const part = by.slice(at, at + each);
    const mean = part.reduce((sum, kl) => sum + kl, 0) / part.length;
    lines.push(`    ${`${at}-${at + part.length - 1}`.padEnd(11)} ${mean.toPrecision(4)}`);
  }
  return lines.join('\n');
}
