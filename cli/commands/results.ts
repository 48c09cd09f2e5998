/** What commands find out, by what the JSON calls it: the schemas of `schemas/` are made of these types. */
import type { Benchmark } from '../../api/commands/bench.js';
import type { Fusion } from '../../api/commands/fuse.js';
import type { GoldenComparison } from '../../api/commands/golden.js';
import type { FileFact } from '../../api/fuse/file-fact.js';
import type { Report } from '../../api/fuse/report.js';
import type { Inspection } from '../../api/inspect/inspect.js';
import type { PlanFile } from '../../api/plan/plan-file.js';
import type { ShardReport } from '../../api/shard/shard.js';
import type { Environment } from '../../api/verify/environment.js';
import type { Verification } from '../../api/verify/verify.js';
import type { Diagnostic } from '../../ir/index.js';

/** The result of each kind: `fusion` is `onnx-fuse fusion`. */
export interface Results {
  /** Of `onnx-fuse in out`. */
  readonly fusion: Fusion;
  readonly plan: PlanFile;
  readonly inspection: Inspection;
  /** Of `onnx-fuse print`. */
  readonly text: { readonly text: string };
  readonly verification: Verification;
  /** Of `onnx-fuse shard`. */
  readonly ranks: ShardReport;
  /** Of `onnx-fuse shard --collectives annotate`. */
  readonly annotation: Report;
  readonly benchmark: Benchmark;
  /** Of `onnx-fuse pack`. */
  readonly packing: { readonly output: readonly FileFact[] };
  /** Of `onnx-fuse report`: where the page is. */
  readonly page: { readonly page: string };
  /** Of `onnx-fuse golden`. */
  readonly comparison: GoldenComparison;
  readonly passes: ListedPasses;
  /** Of `onnx-fuse env`. */
  readonly environment: Environment;
  readonly run: RunResults;
}

/** The passes that pipelines may name. */
export interface ListedPasses {
  readonly passes: readonly {
    readonly id: string;
    /** What it does to the function: `exact`, `reassociates` or `changes-function`. */
    readonly effect: string;
    readonly summary: string;
    /** The effect is that which the pass has with the option. */
    readonly options: readonly { readonly name: string; readonly help: string; readonly effect: string }[];
  }[];
}

/** Of `onnx-fuse run`: what each command would give as JSON, up to the first that failed. */
export interface RunResults {
  readonly results: readonly {
    /** The command as the file names it. */
    readonly command: string;
    /** Of the result, or `onnx-fuse failure`. */
    readonly kind: string;
    readonly version: number;
    readonly status: 'done' | 'failed';
  }[];
}

/** What a command found out. */
export type Outcome = { readonly [Kind in keyof Results]: OutcomeOf<Kind> }[keyof Results];

interface OutcomeOf<Kind extends keyof Results> {
  readonly kind: Kind;
  readonly result: Results[Kind];
  /** The result for people; nothing for no line. It sees no name as anything but text on one line. */
  readonly render: (shown: Results[Kind]) => string;
  /** What is wrong with a result that is given all the same: a limit that it does not keep. */
  readonly failure?: Diagnostic | null;
}
