/**
 * What passes call the weights and nodes that they make; layer-numbers.ts reads the layer's number back from such a name:
 *
 *     fused.layers.4-9.ffn.gate.weight     of the FFNs of layers 4 to 9, made one
 *     layers.4.ffn.gate.weight             of layer 4, made anew
 *     model.layers.4.attn.linear.weight    one matrix in the place of layer 4's attention, which the model calls so
 *     tp.layers.4.attn.q.weight            a rank's share of layer 4
 */

export type NamedRole = 'attention' | 'ffn';

/** The beginning of the name of everything that only a rank's model has. */
export const SHARD_PREFIX = 'tp.';

const SHORT: Readonly<Record<NamedRole, string>> = { attention: 'attn', ffn: 'ffn' };

/** The name of the weights of branches that became one; `labels` are those of their layers, in order. A label may be a range already. */
export function fusedName(labels: readonly string[], role: NamedRole): string {
  const [from, to] = [labels[0]?.split('-')[0], labels.at(-1)?.split('-').at(-1)];
  return `fused.layers.${from}-${to}.${SHORT[role]}`;
}

/** The label of merged layers, `4-9`, in the name of a weight that was made for them; null in any other. */
export function fusedLabel(name: string): string | null {
  return /^fused\.layers\.(\d+-\d+)\./.exec(name)?.[1] ?? null;
}

/** The name of the weights of a branch that are made anew. */
export function layerName(label: string, role: NamedRole): string {
  return `layers.${label}.${SHORT[role]}`;
}

/** The name of one matrix in the place of a branch; `layer` is what the model's names call its layer, `model.layers.7`. */
export function linearName(layer: string, role: NamedRole): string {
  return `${layer}.${SHORT[role]}.linear`;
}

/** The name of a rank's share of a branch. */
export function shardName(label: string, role: NamedRole): string {
  return `${SHARD_PREFIX}${layerName(label, role)}`;
}

/** What one of the input projections of an FFN is called. */
export function ffnInputName(count: number, index: number): string {
  if (count === 1) return 'up';
  if (count === 2) return index === 0 ? 'gate' : 'up';
  return `input_${index}`;
}

/** What one of the projections into heads is called. */
export function attentionInputName(count: number, index: number): string {
  if (count === 3) return ['q', 'k', 'v'][index] as string;
  return count === 1 ? 'qkv' : `input_${index}`;
}
