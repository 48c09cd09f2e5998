/** Branches of one matrix, and which place of their layer they stand in. */
import type { Node, Value } from '../../../ir/core.js';
import { attempt, Refusal } from '../refusal.js';
import type { ElementTypes } from '../values/element-types.js';
import { type BranchWords, readTail, skipBias } from './ffn.js';
import { type Branch, type LayerSlot, type LinearBranch, mixesTokens } from './layer.js';
import { readNorm } from './norm.js';
import type { Point } from './residual-stream.js';

/** Reads the branch that ends in `output`, a term of the sum at `end`, as one matrix on a norm of `input`; null when it is none. */
export function matchLinearBranch(
  output: Value,
  input: Point,
  end: Point,
  types: ElementTypes,
): Pick<LinearBranch, 'norm' | 'linear' | 'bias' | 'tail'> | null {
  const read = attempt(() => {
    const { down, downBias, tail } = readTail(output, skipBias(output, end), types, WORDS);
    return { norm: readNorm(down, input, types).norm, linear: down, bias: downBias, tail };
  });
  return read instanceof Refusal ? null : read;
}

const WORDS: BranchWords = {
  projection: 'its matrix',
  merged: 'one matrix',
  afterNorm: 'it is not one matrix',
};

const OF_FFN = /mlp|ffn|feed_?forward|post_attention|ln_?2|\bfc/i;
const OF_ATTENTION = /attn|attention|mixer|input_layernorm|ln_?1/i;

/**
 * The places of the linears of one layer, whose branches are in the order of the stream: before an FFN it is the
 * attention's, behind an attention the FFN's, of two the first is the attention's; one alone is told by its names.
 */
export function slotsOf(branches: readonly Branch[]): Map<Branch, LayerSlot> {
  const linears = branches.filter((branch) => branch.role === 'linear');
  const slots = new Map<Branch, LayerSlot>();
  const rest = branches.filter((branch) => branch.role !== 'linear');
  const taken = {
    attention: rest.some((branch) => branch.role === 'attention' || mixesTokens(branch)),
    ffn: rest.some((branch) => !mixesTokens(branch)),
  };
  for (const [i, linear] of linears.entries()) {
    const isOneOfTwo = linears.length - i > 1 || i > 0;
    let slot: LayerSlot = 'unknown';
    if (!taken.attention && (taken.ffn || isOneOfTwo)) slot = 'attention';
    else if (taken.attention && !taken.ffn) slot = 'ffn';
    else if (!taken.attention && !taken.ffn) slot = namedSlot(linear.nodes);
    slots.set(linear, slot);
    if (slot !== 'unknown') taken[slot] = true;
  }
  return slots;
}

function namedSlot(nodes: ReadonlySet<Node>): LayerSlot {
  const texts = [...nodes].flatMap((node) => [
    node.name,
    ...node.inputs.map((value) => value?.name ?? ''),
    ...node.outputs.map((value) => value?.name ?? ''),
    ...[...node.metadata].map(([, text]) => text),
  ]);
  const ffn = texts.filter((text) => OF_FFN.test(text)).length;
  const attention = texts.filter((text) => OF_ATTENTION.test(text) && !OF_FFN.test(text)).length;
  if (ffn === attention) return 'unknown';
  return ffn > attention ? 'ffn' : 'attention';
}
