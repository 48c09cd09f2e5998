/** Outputs held against outputs. */
import type { Values } from '../evaluate.js';
import { Wrong } from '../failure.js';
import type { Tensor } from '../operators/tensor.js';

/** Sums of doubles in another order. */
export const REORDERED = 1e-9;

/** The largest relative L2 difference of the outputs. Throws Wrong beyond the tolerance, or where names differ. */
export function compare(found: Values, expected: Values, tolerance: number, kind: string, than: string): number {
  const names = [...expected.keys()].filter((name) => !name.startsWith('past_key_values.') && !FED.has(name));
  const [a, b] = [[...found.keys()].sort().join(), names.sort().join()];
  if (a !== b) throw new Wrong(kind, `outputs ${a} instead of ${b}`);
  let worst = 0;
  for (const name of names) {
    const [x, y] = [found.get(name), expected.get(name)] as [Tensor, Tensor];
    if (x.dims.join() !== y.dims.join()) throw new Wrong(kind, `'${name}' is [${x.dims}] instead of [${y.dims}]`);
    let [difference, size] = [0, 0];
    for (const [i, value] of x.data.entries()) {
      difference += (value - (y.data[i] as number)) ** 2;
      size += (y.data[i] as number) ** 2;
    }
    const relative = difference === 0 ? 0 : Math.sqrt(difference / size);
    if (!(relative <= tolerance)) {
      throw new Wrong(
        kind,
        `'${name}' differs from ${than} by ${relative.toExponential(2)}, expected at most ${tolerance}`,
      );
    }
    worst = Math.max(worst, relative);
  }
  return worst;
}

/** Graph inputs that are no caches. */
const FED = new Set(['input_ids', 'position_ids', 'seqlens_k', 'total_sequence_length', 'attention_bias']);
