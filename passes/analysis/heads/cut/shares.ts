/** A rank's share of constants that are cut over ranks. */

import { concat, slice, type Weight } from '../../../../ir/weight.js';
import { type Matrix, padded } from '../../matrices/matrix.js';
import type { Cut, Portions } from '../spread.js';

/** One of several processes that each hold a share. */
export interface Rank {
  readonly rank: number;
  readonly ranks: number;
}

/** Which piece of a part a rank holds. Several hold the same where there are fewer pieces than ranks. */
export function pieceOf({ pieces }: Cut, { rank, ranks }: Rank): number {
  return Math.floor((rank * pieces) / ranks);
}

/** Where a rank's shares lie along an axis, part by part: [start, end), and how much of zeros follows. */
function sharesOf({ parts, cuts = [] }: Portions, rank: Rank): { start: number; end: number; zeros: number }[] {
  let from = 0;
  return parts.map(([count = 0], i) => {
    const cut = cuts[i] as Cut;
    const start = pieceOf(cut, rank) * cut.size;
    const end = Math.min(start + cut.size, count);
    const share = { start: from + start, end: from + end, zeros: cut.size - (end - start) };
    from += count;
    return share;
  });
}

/** A rank's share of a matrix along its outputs (colwise) or its inputs (rowwise). Throws Refusal. */
export function shareOfMatrix(matrix: Matrix, axis: 'in' | 'out', portions: Portions, rank: Rank): Matrix {
  const pieces = sharesOf(portions, rank).map(({ start, end, zeros }) => {
    const piece = axis === 'out' ? matrix.columns(start, end) : matrix.rows(start, end);
    return zeros === 0 ? piece : piece.pad(axis, end - start + zeros);
  });
  return (pieces[0] as Matrix).join(pieces.slice(1), axis);
}

/** A rank's share of a weight along `axis`. Throws Refusal. */
export function shareOfWeight(weight: Weight, axis: number, portions: Portions, rank: Rank): Weight {
  const pieces = sharesOf(portions, rank).map(({ start, end, zeros }) =>
    padded(slice(weight, axis, start, end), axis, zeros),
  );
  return concat(pieces, axis);
}
