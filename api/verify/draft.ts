/**
 * What a changed model is worth as a draft for its original in speculative decoding (arXiv 2211.17192): it drafts tokens, the
 * original takes them or not, and what is said is the original's own distribution: no quality is lost.
 */
import type { MeasuredSpeed } from '../plan/measured-speed.js';

/** How a changed model does as a draft. */
export interface DraftWorth {
  /** Share of drafted tokens that the original takes: the mean of sum min(p, q) over the positions of the text. */
  readonly acceptance: number;
  readonly lengths: readonly DraftLength[];
  /** Times of one token of both models; null where they were not measured. */
  readonly speed: MeasuredSpeed | null;
}

/** The same for one number of drafted tokens. */
export interface DraftLength {
  /** Tokens drafted before the original is run once over all of them. */
  readonly drafted: number;
  /**
   * Tokens that a run of the original gives on average, its own included: (1 - a^(g + 1)) / (1 - a) for g drafted ones with the mean
   * acceptance a, as if every position were as good as the mean.
   */
  readonly tokensPerRun: number;
  /** Predicted, as if the original ran over g + 1 tokens in the time of one; null without measured times. */
  readonly speedup: number | null;
}

const LENGTHS = [2, 4, 8];

/** The draft that a mean overlap and, where they were measured, the times of one token make. */
export function draftOf(acceptance: number, speed: MeasuredSpeed | null): DraftWorth {
  const lengths = LENGTHS.map((drafted) => {
    // The same sum term by term, which holds for 1, too.
    const terms = Array.from({ length: drafted + 1 }, (_, i) => acceptance ** i);
    const tokensPerRun = terms.reduce((sum, term) => sum + term, 0);
    const runs = speed && 1 + drafted / speed.speedup;
    return { drafted, tokensPerRun, speedup: runs && tokensPerRun / runs };
  });
  return { acceptance, lengths, speed };
}

/** A few lines for people. */
export function renderDraft({ acceptance, lengths, speed }: DraftWorth): string[] {
  const ms = (seconds: number): string => `${(1000 * seconds).toPrecision(3)} ms`;
  return [
    `  as a draft for the original (speculative decoding, no quality lost): ${(100 * acceptance).toFixed(2)} % of its tokens are taken`,
    ...lengths.map(({ drafted, tokensPerRun, speedup }) => {
      const fast = speedup === null ? '' : `, ${speedup.toFixed(3)} times as fast as the original alone (predicted)`;
      return `    ${drafted} drafted   ${tokensPerRun.toFixed(2)} tokens for each run of the original${fast}`;
    }),
    ...(speed
      ? [
          `    a token takes ${ms(speed.original)} -> ${ms(speed.changed)}, ${speed.speedup.toFixed(3)} times as fast (quartiles ` +
            `${speed.quartiles.map((each) => each.toFixed(3)).join(' to ')}; measured: ${speed.runtime})`,
        ]
      : []),
  ];
}
