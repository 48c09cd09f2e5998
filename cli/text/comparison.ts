/** What `onnx-fuse verify` prints of two models that were run on random tokens, and where they ran. */
import { driftOf } from '../../api/fuse/check.js';
import { counted } from '../../ir/visible.js';
import { type Comparison, countsText, type Placement } from '../../runtime/index.js';
import { scoresText } from './figures.js';
import { table } from './table.js';

/** Rows of a comparison: a model has two caches a layer. */
const MOST_OUTPUTS = 8;

/** The outputs that differ most, in the order of the model. */
function worstOutputs({ perOutput }: Comparison): { shown: Comparison['perOutput']; more: Comparison['perOutput'] } {
  const far = ({ relative }: Comparison['perOutput'][number]): number => (Number.isNaN(relative) ? Infinity : relative);
  const order = [...perOutput].sort((a, b) => far(b) - far(a));
  const logits = perOutput.slice(0, 1);
  const kept = new Set([...logits, ...order].slice(0, MOST_OUTPUTS));
  return { shown: perOutput.filter((each) => kept.has(each)), more: perOutput.filter((each) => !kept.has(each)) };
}

/** The outputs that differ most, the drift and the worst error. */
export function renderComparison(comparison: Comparison): string {
  const { shown, more } = worstOutputs(comparison);
  const rows = shown.map((output) => [
    output.name,
    String(output.elements),
    output.absolute.toExponential(2),
    output.relative.toExponential(2),
    output.cosine.toFixed(6),
  ]);
  const lines = [table(['output', 'elements', 'max abs', 'relative', 'cosine'], rows), ''];
  if (more.length > 0) lines.splice(1, 0, `and ${more.length} that are as close or closer (--json lists all)`);
  if (comparison.onlyReference.length > 0) lines.push(`only in the first: ${comparison.onlyReference.join(', ')}`);
  if (comparison.onlyCandidate.length > 0) lines.push(`only in the second: ${comparison.onlyCandidate.join(', ')}`);
  const drift = driftOf(comparison);
  lines.push(
    drift.positions > 0
      ? `next token, ${counted(drift.positions, 'position')} of random tokens: ${scoresText(drift)}`
      : scoresText(drift),
  );
  if (comparison.assumed.length > 0) lines.push(`arbitrary values fed to: ${comparison.assumed.join(', ')}`);
  lines.push(`worst relative error ${comparison.worst.relative.toExponential(2)}`);
  return lines.join('\n');
}

/** `on cuda 312 nodes; on the CPU 14 small ones (Shape 9, Gather 5)`. */
export function renderPlacement({ provider, onProvider, computedOnCpu, smallOnCpu }: Placement): string {
  const part = (counts: Placement['smallOnCpu'], what: string): string => {
    const count = Object.values(counts).reduce((sum, each) => sum + each, 0);
    return count > 0 ? `; on the CPU ${count} ${what} (${countsText(counts)})` : '';
  };
  return `on ${provider} ${counted(onProvider, 'node')}${part(computedOnCpu, "of the model's work")}${part(smallOnCpu, 'that are small')}`;
}
