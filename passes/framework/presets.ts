/** Pipelines that have a name. The order is the paper's: remove, make parallel, concatenate, clean up. */
import type { Pass } from './pass.js';
import { parsePipeline, type Step } from './pipeline.js';

export interface FuseOptions {
  /** Text of layer numbers, or undefined. */
  readonly removeAttention?: string | undefined;
  /** Text of layer numbers, or undefined. */
  readonly removeFfn?: string | undefined;
  readonly runs?: string | undefined;
  readonly keepLast?: number | undefined;
  readonly maxWidth?: number | undefined;
  readonly lead?: boolean | undefined;
  readonly norm?: 'fold' | 'last' | undefined;
  /** Windows of whole blocks that will read one input, or undefined. */
  readonly parallelizeBlocks?: string | undefined;
  readonly blockForm?: 'two-stage' | 'literal' | undefined;
  /** Caches of attentions that become one: one for all, or each its own. */
  readonly kvCaches?: 'merged' | 'separate' | undefined;
  /** Let block-quantised FFNs take up norms that differ, quantised again. */
  readonly requantize?: boolean | undefined;
  /** False leaves FFNs as they are: attentions and FFNs are only removed. */
  readonly fuse?: boolean | undefined;
  /** Numbers of the caches that are left: the original ones, or 0..n-1. */
  readonly kvNaming?: 'preserve' | 'compact' | undefined;
}

/** The default pipeline for `onnx-fuse in out`, as text. */
export function fusePipeline(options: FuseOptions): string {
  const words: string[] = [];
  if (options.keepLast !== undefined) words.push(`keep-last=${options.keepLast}`);
  if (options.maxWidth !== undefined) words.push(`max-width=${options.maxWidth}`);
  if (options.runs !== undefined) words.push(`runs=${options.runs.replace(/\s+/g, '')}`);
  if (options.lead) words.push('lead=true');
  if (options.norm === 'last') words.push('norm=last');
  const attention = options.removeAttention?.replace(/\s+/g, '');
  const ffn = options.removeFfn?.replace(/\s+/g, '');
  const windows = options.parallelizeBlocks?.replace(/\s+/g, '');
  const form = options.blockForm === 'literal' ? ' form=literal' : '';
  return [
    'inline-functions',
    ...(attention ? [`remove-attention{layers=${attention}}`] : []),
    ...(ffn ? [`remove-ffn{layers=${ffn}}`] : []),
    ...(windows ? [`parallelize-blocks{windows=${windows}${form}}`] : []),
    ...(options.fuse === false
      ? []
      : [
          words.length > 0 ? `parallelize-ffn{${words.join(' ')}}` : 'parallelize-ffn',
          ...(options.requantize ? ['requantize-ffn'] : []),
          'concat-ffn',
        ]),
    ...(windows ? [options.kvCaches === 'separate' ? 'concat-attention{caches=separate}' : 'concat-attention'] : []),
    ...(options.kvNaming === 'compact' ? ['rename-kv{naming=compact}'] : []),
    // Last, because the passes before it already erase what they kill: this is for what the exporter left.
    'drop-dead',
  ].join(',');
}

/**
 * The reference that the algebra is checked against: the same pipeline with only the steps that change the function,
 * so that what remains to be shown equal is exactly what claims to be exact.
 */
export function referenceSteps(steps: readonly Step[]): Step[] {
  return steps.filter(({ pass }) => pass.effect === 'changes-function' || pass.isPreparation);
}

/** The same steps without the one that quantises weights again: what its error is measured against. */
export function withoutRequantization(steps: readonly Step[]): Step[] {
  return steps.filter((step) => step.pass.id !== 'requantize-ffn');
}

/** Convenience for callers that have options rather than text. */
export function fuseSteps(options: FuseOptions, registry: ReadonlyMap<string, Pass>): Step[] {
  return parsePipeline(fusePipeline(options), registry);
}
