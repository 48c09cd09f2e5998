/** Branches of one matrix, or of two whose product is one of low rank, and which place of their layer they stand in. */
import type { Node, Value } from '../../../ir/core.js';
import { elementCount } from '../../../ir/type.js';
import { type Linear, matchLinear } from '../matrices/linear.js';
import { matchMatrix } from '../matrices/stored-matrices.js';
import { attempt, Refusal } from '../refusal.js';
import type { ElementTypes } from '../values/element-types.js';
import { type BranchWords, readTail, skipBias } from './ffn.js';
import { type Branch, type LayerSlot, type LinearBranch, mixesTokens, streamReads } from './layer.js';
import { matchNorm, type Norm, readNorm } from './norm.js';
import { type Point, type ResidualStream, readsOnlyShape, type Stage, throughAliases } from './residual-stream.js';

/**
 * Reads the branch that ends in `output`, a term of the sum at `end`, as one matrix on a norm of `input`, or as two with fewer
 * channels in between; null when it is neither.
 */
export function matchLinearBranch(
  output: Value,
  input: Point,
  end: Point,
  types: ElementTypes,
): Pick<LinearBranch, 'norm' | 'linear' | 'right' | 'reading' | 'bias' | 'tail'> | null {
  const read = attempt(() => {
    const { down, downBias, tail } = readTail(output, skipBias(output, end), types, WORDS);
    const left = leftOf(down, types);
    const linear = left ?? down;
    const reading = readNorm(linear, input, types);
    return { norm: reading.norm, linear, right: left && down, reading, bias: downBias, tail };
  });
  return read instanceof Refusal ? null : read;
}

/** The first of two matrices, [hidden, rank], given the second one; null where that reads something else. */
function leftOf({ input, inWidth, outWidth }: Linear, types: ElementTypes): Linear | null {
  const left = matchLinear(throughAliases(input, types));
  return left && !left.bias && left.outWidth === inWidth && inWidth < outWidth ? left : null;
}

const WORDS: BranchWords = {
  projection: 'its matrix',
  merged: 'one matrix',
  afterNorm: 'it is not one matrix',
};

/** What the projections of a branch read, [batch, tokens, hidden]: what a linear in its place reads. */
export interface BranchInput {
  readonly value: Value;
  /** The norm of the stream that this is; null where it is the stream itself. */
  readonly norm: Norm | null;
  /** How many channels it has. */
  readonly width: number;
}

/**
 * What the projections of a branch read, given all nodes of the branch: the norm in front of it, before factors between
 * norm and projections, or the stream where no norm comes in between.
 */
export function inputOf(nodes: ReadonlySet<Node>, { start }: Stage, stream: ResidualStream): BranchInput | Refusal {
  const { types } = stream;
  const normOf = (value: Value | null): Norm | null => value && matchNorm(value, start, types);
  let found: { readonly value: Value; readonly norm: Norm | null } | null = null;
  let width: number | null = null;
  for (const node of nodes) {
    // A norm's own nodes read parts of it.
    if (readsOnlyShape(node) || node.outputs.some((result) => normOf(result))) continue;
    for (const value of node.inputs) {
      const norm = normOf(value);
      if (!value || !norm) continue;
      const other = found?.norm?.output ?? norm.output;
      if (other !== norm.output) return new Refusal('it reads the stream through two norms', node);
      found ??= { value, norm };
      width ??= widthOf(value, norm, node);
    }
  }
  for (const { node, index } of found ? [] : streamReads(nodes, start, stream)) {
    const value = node.input(index);
    if (!value || readsOnlyShape(node)) continue;
    found ??= { value, norm: null };
    width ??= widthOf(value, null, node);
  }
  if (!found) return new Refusal('what it reads of the stream was not found');
  return width === null ? new Refusal('how many channels it reads is not known') : { ...found, width };
}

/** How many channels what `node` reads has, as far as its matrix, the norm or a shape says. */
function widthOf(value: Value, norm: Norm | null, node: Node): number | null {
  const count = norm?.gamma ? elementCount(norm.gamma.weight.dims) : 1;
  if (count > 1) return count;
  const matrix = matchMatrix(node);
  if (matrix && !(matrix instanceof Refusal)) return matrix.inWidth;
  const last = value.shape?.at(-1);
  return typeof last === 'number' ? last : null;
}

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
    // Also where both places are taken: linears that were joined stand beside the FFNs that became one.
    else if (taken.attention === taken.ffn) slot = namedSlot(linear.nodes);
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
