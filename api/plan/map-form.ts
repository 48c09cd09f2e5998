/** How fitted maps are stored: whole or as two matrices of low rank, in the type of the activations or in blocks of bits. */
import { errors } from '../../ir/index.js';
import type { MapBits } from '../../runtime/index.js';

export interface MapForm {
  /** Matrices are stored in blocks of so many bits; null: in the type of the activations. */
  readonly quantizeMaps: MapBits | null;
  /** Rank of the matrix, which is stored as the two whose product it is; null: one matrix of any rank. */
  readonly mapRank: number | null;
}

/** One matrix of any rank, in the type of the activations. */
export const WHOLE_MAPS: MapForm = { quantizeMaps: null, mapRank: null };

/** What was asked for, where that can be had of some model. @throws Diagnostic OF_USAGE. */
export function checkedForm(form: MapForm): MapForm {
  const { quantizeMaps, mapRank } = form;
  if (mapRank === null) return form;
  if (!Number.isSafeInteger(mapRank) || mapRank < 1)
    throw errors.usage(
      'option map-rank',
      `it is ${mapRank}, expected a whole number from 1`,
      'give one that is below half the width of the stream',
    );
  if (quantizeMaps !== null) {
    const why = 'maps of low rank are two matrices in the type of the activations, and only whole ones are quantised';
    throw errors.usage('option quantize-maps', why, 'leave out this or option map-rank');
  }
  return form;
}

/** Refuses a rank that saves nothing: two matrices of half the width are as large as a whole one. @throws Diagnostic OF_USAGE. */
export function checkRank({ mapRank }: Pick<MapForm, 'mapRank'>, widthOf: () => number): void {
  if (mapRank === null) return;
  const width = widthOf();
  if (2 * mapRank < width) return;
  const why = `two matrices of rank ${mapRank} are no smaller than the whole one: the stream has ${width} channels`;
  const most = Math.ceil(width / 2) - 1;
  const remedy = most > 0 ? `give at most ${most}, or leave it out for whole maps` : 'leave it out for whole maps';
  throw errors.usage('option map-rank', why, remedy);
}
