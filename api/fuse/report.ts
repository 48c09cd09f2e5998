/** The outcome of a run as data: what a JSON report holds and render.ts of the command line shows. */
import type { FusedRun, MergedAttention } from '../../passes/index.js';

export interface FileFact {
  readonly path: string;
  readonly bytes: number;
  /** Of the whole file; null when no report was asked for (hashing reads the input once more). */
  readonly sha256: string | null;
}

export interface AlgebraCheck {
  /** ||fused - parallel|| / ||parallel|| in L2, the worst output of all runs. */
  readonly maxRelative: number;
  readonly maxAbsolute: number;
  readonly tolerance: number;
  readonly precision: string;
  readonly pass: boolean;
  /** Next-token distributions compared. */
  readonly positions: number;
}

/** What quantising weights again did to the outputs, beside the exact parallel model: not held to a tolerance. */
export interface Requantization {
  /** ||requantised - exact|| / ||exact|| in L2, the worst output of all runs. */
  readonly maxRelative: number;
  readonly maxAbsolute: number;
}

/** How far the fused model is from the original: the price of the approximation, on random tokens. */
export interface Drift {
  /** Mean KL(original || fused) of next-token distributions, nats. */
  readonly kl: number;
  readonly maxKl: number;
  /** Fraction of positions with the same most likely token. */
  readonly top1: number;
  readonly cosine: number;
  readonly positions: number;
  readonly tokens: 'random';
}

/** One layer of the original. */
export interface LayerFact {
  readonly layer: number;
  readonly attention: boolean;
  /** Whether it has a branch beside the attention: an FFN, experts. */
  readonly ffn: boolean;
  /** Hidden width of its FFN; null when it has none, or none that is understood. */
  readonly ffnWidth: number | null;
}

/** What a folder got beside its model. */
export interface FolderFacts {
  readonly path: string;
  readonly kvNaming: 'preserve' | 'compact';
  /** Files that were rewritten to fit, and files that were copied, relative to the folder. */
  readonly rewritten: readonly string[];
  readonly copied: readonly string[];
  /** What a person should know before using the folder. */
  readonly notes: readonly string[];
}

export interface Report {
  readonly input: readonly FileFact[];
  readonly output: readonly FileFact[];
  readonly options: Readonly<Record<string, unknown>>;
  readonly pipeline: string;
  readonly removedAttention: readonly {
    readonly layer: number;
    readonly kvInputs: readonly string[];
    readonly kvOutputs: readonly string[];
  }[];
  readonly removedFfn: readonly number[];
  /** Caches that have another number in their name now (`kvNaming: 'compact'`). */
  readonly renamedCaches: readonly { readonly from: string; readonly to: string }[];
  /** Whole blocks that read one input now. */
  readonly parallelBlocks: readonly { readonly layers: readonly string[]; readonly form: 'two-stage' | 'literal' }[];
  /** FFNs that read one input now, whether or not they became one. */
  readonly parallelRuns: readonly FusedRun[];
  readonly runs: readonly FusedRun[];
  /** Attentions that became one, with what became of their caches. */
  readonly mergedAttention: readonly MergedAttention[];
  /** Layers whose gate and up took up their norm and were quantised again (`requantize`). */
  readonly requantized: readonly string[];
  /** The layers before the pipeline ran. */
  readonly original: readonly LayerFact[];
  readonly checks: {
    readonly algebra: AlgebraCheck | null;
    /** Null when nothing was requantised, or nothing was checked. */
    readonly requantization: Requantization | null;
    readonly drift: Drift | null;
    /** Why a check was not made; null when all that apply were. */
    readonly skipped: string | null;
    /** Inputs of unknown purpose that got arbitrary values. */
    readonly assumed: readonly string[];
  };
  /** Every layer that is in no run, with the reason. */
  readonly left: readonly { readonly layer: string; readonly reason: string }[];
  readonly parameters: { readonly before: number; readonly after: number };
  readonly kvBytesPerToken: { readonly before: number | null; readonly after: number | null };
  readonly nodes: { readonly before: number; readonly after: number };
  readonly layers: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly seconds: Readonly<Record<string, number>>;
  readonly peakRssBytes: number;
  readonly versions: Readonly<Record<string, string>>;
  readonly written: boolean;
  /** Only of a run on a folder. */
  readonly folder?: FolderFacts;
  readonly dryRun: boolean;
}
