/** How runs are chosen, and the defaults. */

/** How runs are chosen. */
export interface RunOptions {
  /** How many FFNs at the end of every attention-free stretch stay out (the paper: 1). */
  readonly keepLast: number;
  /** Widest fused FFN, in hidden units; 0 is no limit. */
  readonly maxWidth: number;
  /** Runs to fuse exactly as given, in original layer numbers; empty means automatic. */
  readonly runs: readonly (readonly number[])[];
  /** Also take the FFN of the layer just before the stretch, whose attention stays. */
  readonly lead: boolean;
  /** All members of a run will read the norm of the last. */
  readonly sharesLastNorm: boolean;
  /** Also make runs of FFNs that read one input and can not be made one. */
  readonly parallelOnly: boolean;
}

/** The paper's choice: every run, but for its last FFN. */
export const DEFAULT_RUN_OPTIONS: RunOptions = {
  keepLast: 1,
  maxWidth: 0,
  runs: [],
  lead: false,
  sharesLastNorm: false,
  parallelOnly: false,
};
