/** Figures as people read them, in ASCII. */
import type { Drift } from '../../api/fuse/report.js';

/** 1.25 ms, 310 us. */
export function secondsText(value: number): string {
  return value >= 1e-3 ? `${(1000 * value).toPrecision(3)} ms` : `${(1e6 * value).toPrecision(3)} us`;
}

/** A share: 88.3 %. There is no minus in front of nothing. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(1).replace(/^-(?=0\.0$)/, '')} %`;
}

/** A growth: +0.7 %, -2.2 %. */
export function growth(share: number): string {
  const text = percent(share);
  return text.startsWith('-') ? text : `+${text}`;
}

/** What next-token distributions say; nothing without logits, which is no agreement. */
export function scoresText({ kl, maxKl, top1 }: Pick<Drift, 'kl' | 'maxKl' | 'top1'>): string {
  if (kl === null || maxKl === null || top1 === null) return 'no logits: KL and top-1 agreement not measured';
  const agreement = `top-1 agreement ${percent(top1)}`;
  return `KL ${kl.toPrecision(3)} (largest ${maxKl.toPrecision(3)}), ${agreement}`;
}

/** Positions below which a mean over them is rough. */
const FEW = 1000;

/** A word of caution under figures that were measured on little text; nothing where there is enough of it. */
export function cautions(positions: number): string[] {
  return positions < FEW
    ? [`measured on ${positions} positions only: more text gives figures that can be relied on`]
    : [];
}
