/** FFNs on one input, as data: what parallelize-ffn, parallelize-blocks and concat-ffn state about their runs. */

/** FFNs that read one input or became one. */
export interface FusedRun {
  /** Labels of their layers, original numbers. */
  readonly layers: readonly string[];
  /** Hidden widths of the members. */
  readonly widths: readonly number[];
  /** Hidden width of the one FFN that they make, with what padding adds. */
  readonly fusedWidth: number;
  /** Layers of the run before whose FFN a linear stands that reads the input of the run, too; not there for none. */
  readonly linears?: readonly string[];
}

/** `8 x 35584 + 4 x 35328`: equal neighbours together. */
export function widthsText(widths: readonly number[]): string {
  const groups: { width: number; count: number }[] = [];
  for (const width of widths) {
    const last = groups.at(-1);
    if (last?.width === width) last.count++;
    else groups.push({ width, count: 1 });
  }
  return groups.map(({ width, count }) => (count > 1 ? `${count} x ${width}` : String(width))).join(' + ');
}
