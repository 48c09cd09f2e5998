/** How wide text for people is. */

/** Columns where there is no terminal, and the fewest and most of one that are made use of. */
const COLUMNS = { none: 80, least: 40, most: 110 };

/** Columns of the terminal on standard output, within reason. */
export function textWidth(
  { isTTY, columns }: { readonly isTTY?: boolean; readonly columns?: number } = process.stdout,
) {
  return isTTY && columns ? Math.min(Math.max(columns, COLUMNS.least), COLUMNS.most) : COLUMNS.none;
}
