/** Pipelines that have a name, as steps. The order is the paper's: remove, make parallel, concatenate, clean up. */
import { type Step, step } from './framework/pipeline.js';
import { concatAttention } from './transforms/concat-attention/index.js';
import { concatFfn } from './transforms/concat-ffn.js';
import { concatLinear } from './transforms/concat-linear.js';
import { dropDead } from './transforms/drop-dead.js';
import { inlineFunctions } from './transforms/inline-functions.js';
import { instrument } from './transforms/instrument.js';
import { linearize } from './transforms/linearize.js';
import { parallelizeBlocks } from './transforms/parallelize-blocks.js';
import { parallelizeFfn } from './transforms/parallelize-ffn.js';
import { removeAttention } from './transforms/remove-attention.js';
import { removeFfn } from './transforms/remove-ffn.js';
import { renameKv } from './transforms/rename-kv.js';
import { requantizeFfn } from './transforms/requantize-ffn.js';
import { type CollectiveStyle, shardTensorParallel } from './transforms/shard-tensor-parallel/index.js';
import { stripMetadata } from './transforms/strip-metadata.js';

/**
 * Layers by number. With `ifThere` they come from a description of the whole model, some of which may have gone from this
 * one already: those are said, and no error.
 */
export type LayerSelection = readonly number[] | { readonly ifThere: readonly number[] };

/** The numbers of a selection. */
export function selectedLayers(selection: LayerSelection): readonly number[] {
  return 'ifThere' in selection ? selection.ifThere : selection;
}

/** Branches in whose place fitted maps stand. */
export interface LinearizeOptions {
  readonly attention: readonly number[];
  readonly ffn: readonly number[];
  /** Path of the `.onnx-fuse-fit`. */
  readonly maps: string;
}

/** What to do to a model. All layers have their original numbers; an empty list is the same as none. */
export interface FuseOptions {
  /** Layers whose attention goes, by their numbers in the original; none by default. */
  readonly removeAttention?: LayerSelection | undefined;
  /** Layers whose FFN goes, likewise; none by default. */
  readonly removeFfn?: LayerSelection | undefined;
  /** Layers whose attention, or FFN, becomes a fitted linear map, and the file of the maps. */
  readonly linearize?: LinearizeOptions | undefined;
  /** Runs of layers whose FFNs become one, as lists of layer numbers; all that can by default. */
  readonly runs?: readonly (readonly number[])[] | undefined;
  /** FFNs at the end of each run that are left as they are; 1 by default. */
  readonly keepLast?: number | undefined;
  /** Widest FFN that is made, in hidden channels; longer runs are split. No limit by default. */
  readonly maxWidth?: number | undefined;
  /** Also fuse the FFN just before each run, whose attention stays; false by default. */
  readonly lead?: boolean | undefined;
  /** Fold the norm of each FFN into its weights, which is exact, or use that of the last for all; `fold` by default. */
  readonly norm?: 'fold' | 'last' | undefined;
  /** Also make FFNs parallel that cannot become one, which saves no work; false by default. */
  readonly parallelOnly?: boolean | undefined;
  /** Windows of whole blocks that will read one input, as lists of layer numbers; none by default. */
  readonly parallelizeBlocks?: readonly (readonly number[])[] | undefined;
  /**
   * FFNs of a window read the sum of its attentions (`two-stage`, the default), or each its own attention without merging
   * (`literal`).
   */
  readonly blockForm?: 'two-stage' | 'literal' | undefined;
  /** Caches of attentions that become one: one for all (`merged`, the default), or each its own, as onnxruntime-genai needs. */
  readonly kvCaches?: 'merged' | 'separate' | undefined;
  /** Let block-quantised FFNs take up norms that differ, quantised again; false by default. */
  readonly requantize?: boolean | undefined;
  /** Leave out what cannot be done for a layer that was named, and say so, instead of giving up; false by default. */
  readonly keepGoing?: boolean | undefined;
  /** False leaves FFNs as they are: attentions and FFNs are only removed. True by default. */
  readonly fuse?: boolean | undefined;
  /** Numbers of the caches that are left: the original ones (`preserve`), or 0..n-1. By default `preserve`, and in a folder of genai what it needs. */
  readonly kvNaming?: 'preserve' | 'compact' | undefined;
  /** Take out stack traces, doc strings and source paths; false by default. */
  readonly stripMetadata?: boolean | undefined;
}

/** The default pipeline of `onnx-fuse in out`. @throws Diagnostic OF_USAGE for lists that are none. */
export function fuseSteps(options: FuseOptions): Step[] {
  const windows = given(options.parallelizeBlocks);
  const going = { 'keep-going': options.keepGoing || undefined };
  const steps: Step[] = [step(inlineFunctions)];
  for (const [pass, selection] of [
    [removeAttention, options.removeAttention],
    [removeFfn, options.removeFfn],
  ] as const) {
    const layers = selection && given(selectedLayers(selection));
    if (layers) steps.push(step(pass, { layers, absent: 'ifThere' in selection ? 'skip' : undefined, ...going }));
  }
  const { attention, ffn, maps } = options.linearize ?? { attention: [], ffn: [], maps: '' };
  if (given([...attention, ...ffn])) {
    steps.push(step(linearize, { attention: given(attention), ffn: given(ffn), map: maps, ...going }));
  }
  if (windows) {
    const form = options.blockForm === 'literal' ? 'literal' : undefined;
    steps.push(step(parallelizeBlocks, { windows, form, ...going }));
  }
  if (options.fuse !== false) {
    steps.push(
      step(parallelizeFfn, {
        'keep-last': options.keepLast,
        'max-width': options.maxWidth,
        runs: given(options.runs),
        lead: options.lead || undefined,
        norm: options.norm === 'last' ? 'last' : undefined,
        'parallel-only': options.parallelOnly || undefined,
        ...(given(options.runs) ? going : {}),
      }),
    );
    if (options.requantize) steps.push(step(requantizeFfn));
    steps.push(step(concatFfn));
    // Linears come to one sum only by the runs that were asked for.
    if (given(options.runs)) steps.push(step(concatLinear));
  }
  if (windows) {
    steps.push(step(concatAttention, { caches: options.kvCaches === 'separate' ? 'separate' : undefined }));
  }
  if (options.kvNaming === 'compact') steps.push(step(renameKv, { naming: 'compact' }));
  if (options.stripMetadata) steps.push(step(stripMetadata));
  // Last, because the passes before it already erase what they kill: this is for what the exporter left.
  steps.push(step(dropDead));
  return steps;
}

/** A list that says something; undefined for none. */
function given<T>(list: readonly T[] | undefined): readonly T[] | undefined {
  return list && list.length > 0 ? list : undefined;
}

/** Runs whose FFNs are applied in reverse order; the attentions in between must go first. */
export interface ReversedRuns {
  readonly removeAttention: readonly number[];
  readonly runs: readonly (readonly number[])[];
}

/** What comes before `gateSteps`, on a plain decoder. */
export function gatePreparation({ removeAttention: layers }: ReversedRuns): Step[] {
  return layers.length > 0 ? [step(removeAttention, { layers })] : [];
}

/** Puts gates on every branch. */
export function gateSteps({ runs }: ReversedRuns): Step[] {
  return [step(instrument, { reverse: given(runs) })];
}

/** How a model is cut over ranks. */
export interface ShardOptions {
  /** Ranks of the group: 2 or more. */
  readonly ranks: number;
  /** The operators, or none, by which ranks exchange results. */
  readonly style: CollectiveStyle;
  /** Cut the projection to the vocabulary and gather the logits, or leave it whole on every rank. */
  readonly lmHead: 'gather' | 'replicate';
  /** Leave what does not divide replicated, instead of filling up with zeros. */
  readonly refuse: boolean;
  /** Layers whose attention every rank computes whole; none by default. */
  readonly replicateAttention?: readonly number[] | undefined;
  /** Layers whose FFN every rank computes whole; none by default. */
  readonly replicateFfn?: readonly number[] | undefined;
}

/** The pipeline that makes the model of one rank. */
export function shardSteps(options: ShardOptions, rank: number): Step[] {
  return [
    step(inlineFunctions),
    step(shardTensorParallel, {
      ranks: options.ranks,
      rank,
      collectives: options.style,
      'lm-head': options.lmHead,
      refuse: options.refuse || undefined,
      'replicate-attention': given(options.replicateAttention),
      'replicate-ffn': given(options.replicateFfn),
    }),
  ];
}
