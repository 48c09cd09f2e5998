/**
 * The part of several attentions between their projections, read at the same time: node by node the members do the same,
 * and what differs lies along the heads. Rules (head-rules.ts) say for each operator where the heads go.
 *
 * Of one branch alone, with a cutter, the same reading says where its heads (of an FFN: its channels) lie, and what has to
 * change so that the branch computes a rank's share of them.
 */

import type { Node, Value } from '../../../ir/core.js';
import type { Weight } from '../../../ir/weight.js';
import { matchNorm, type Norm, type NormReading, readNorm } from '../layers/norm.js';
import { isSame, isShapeQuery } from '../layers/residual-stream.js';
import { type Linear, matchLinear } from '../matrices/linear.js';
import { describe, operandOf, Refusal } from '../refusal.js';
import { constantOf, copiedFrom } from '../values/constants.js';
import { Dimensions, fixedSize, type Sizes } from '../values/dimensions.js';
import type { ElementTypes } from '../values/element-types.js';
import { type CutExtent, extentOf } from './cut-extent.js';
import { differingAttribute, type HeadEdit, targetOf } from './edits.js';
import { ruleFor } from './rules.js';
import { agrees, ofMember, type Parts, type Portions, type Reshaped, type Spread, shapeOf } from './spread.js';
import { type Cutter, type HeadLinear, type RegionMember, SHARED, type State } from './state.js';

export type { AttentionMember, Cutter, HeadLinear, RegionMember, State } from './state.js';

/** Integer arithmetic on shapes. */
const SIZE_OPS = new Set(
  'Gather Slice Concat Unsqueeze Squeeze Cast Add Sub Mul Div Reshape Where Equal ConstantOfShape Identity Min Max'.split(
    ' ',
  ),
);

/** Follows heads from the projections through the nodes of a branch, in all members at once. */
export class HeadRegion {
  readonly linears: HeadLinear[] = [];
  /** Per member. */
  readonly norms: (Norm | null)[];
  readonly edits: HeadEdit[] = [];
  /** Values of the frame in which the heads are spread, among them its caches. */
  readonly spreads = new Map<Value, Spread>();
  /** Cache inputs of the frame -> those of all members. */
  readonly caches = new Map<Value, readonly Value[]>();
  /** Per member: its nodes that were read. */
  readonly nodes: ReadonlySet<Node>[];
  /** Per member: its values with spread heads -> the frame's. */
  readonly counterparts: ReadonlyMap<Value, Value>[];
  readonly dimensions: Dimensions;
  /** The same for the other members, as they are. */
  readonly #others: readonly Dimensions[];
  /** Query heads per member, where an operator or a Softmax tells. */
  heads: readonly number[] = [];
  kvHeads: readonly number[] = [];
  /** With a cutter: what is cut. */
  readonly #extent: CutExtent | null;
  readonly #known = new Map<Value, { values: readonly Value[]; parts: string; state: State }>();

  constructor(
    readonly members: readonly RegionMember[],
    readonly types: ElementTypes,
    readonly opset: number,
    /** With it, there is one member, which is cut. */
    readonly cutter: Cutter | null = null,
    /** What will be read of it. */
    roots: readonly Value[] = [],
  ) {
    const [first] = members as [RegionMember];
    this.#extent = cutter && extentOf(first.branch, roots, types);
    this.norms = members.map(() => null);
    this.nodes = members.map(() => new Set<Node>());
    this.counterparts = members.map(() => new Map<Value, Value>());
    this.dimensions = new Dimensions((value) => this.#told(value));
    this.#others = members.slice(1).map((_, i) => new Dimensions((value) => this.#toldOf(value, i + 1)));
  }

  #told(value: Value): Sizes | null {
    const spread = this.spreads.get(value);
    return spread ? shapeOf(spread) : null;
  }

  #toldOf(value: Value, m: number): Sizes | null {
    const frame = this.counterparts[m]?.get(value);
    const spread = frame && this.spreads.get(frame);
    return spread ? shapeOf(ofMember(spread, m)).map(({ now }) => fixedSize(now)) : null;
  }

  /**
   * What an operator makes of a spread that takes its target, a shape, as operand `index`. Each member is followed by
   * itself; the frame's target is changed where it states the heads as a number.
   */
  resized(
    nodes: readonly Node[],
    index: number,
    spread: Spread,
    compute: (spread: Spread, target: Sizes) => Reshaped,
  ): Spread {
    const targets = this.#elements(nodes, index);
    const { spread: made, patches } = compute(spread, targets[0] as Sizes);
    for (const [m, target] of targets.entries()) {
      if (m > 0 && !agrees(made, compute(ofMember(spread, m), target).spread, m)) throw this.unlike(nodes);
    }
    for (const patch of patches) this.edit({ kind: 'element', node: nodes[0] as Node, index, ...patch });
    return made;
  }

  /**
   * Applies factors for the channels of a head, one list per member, to the result of a node; where heads are merged
   * with tokens, that is left to the Reshape that separates them again.
   */
  scaled(node: Node, spread: Spread, weights: readonly Weight[]): Spread {
    const { scale: _, ...plain } = spread;
    if (plain.from !== plain.axis) return { ...plain, scale: weights };
    const size = weights[0]?.dims[0] ?? 0;
    const [own = []] = plain.parts;
    const isFlat = plain.axis === plain.dims.length - 1;
    const counts = isFlat ? own.map((width) => width / size) : own;
    const fits = weights.every(({ dims }) => dims.length === 1 && dims[0] === size) && counts.every(Number.isInteger);
    if (!fits || (!isFlat && plain.dims.at(-1) !== size)) {
      throw new Refusal(`the weights of the norm per head before ${describe(node)} are not one per channel`);
    }
    this.edit({ kind: 'scaled', node, weights, place: isFlat ? 1 : plain.dims.length - plain.axis, counts });
    return plain;
  }

  /** A list of numbers, the same in all members; null where it is absent, or computed but one for all. Throws Refusal. */
  numbers(nodes: readonly Node[], index: number): number[] | null {
    if (nodes.every((node) => !node.input(index))) return null;
    const [first, ...others] = this.#elements(nodes, index);
    const isKnown = first?.every(({ now, grows }) => now !== null && !grows) ?? false;
    if (!isKnown) {
      if (this.operand(nodes, index)?.kind !== 'shared') throw this.unlike(nodes);
      return null;
    }
    const text = (sizes: Sizes): string => sizes.map(({ now }) => now).join();
    if (others.some((sizes) => text(sizes) !== text(first as Sizes))) throw this.unlike(nodes);
    return (first as Sizes).map(({ now }) => now as number);
  }

  /** The axes of Squeeze, Unsqueeze and the reductions: an attribute, or an operand. */
  axes(nodes: readonly Node[]): number[] | null {
    return nodes[0]?.intsAttribute('axes') ?? this.numbers(nodes, 1);
  }

  /** The elements of a list of sizes in each member. */
  #elements(nodes: readonly Node[], index: number): Sizes[] {
    return nodes.map((node, m) => {
      const value = node.input(index);
      const dimensions = m === 0 ? this.dimensions : (this.#others[m - 1] as Dimensions);
      const found = value && dimensions.elements(value);
      if (!found) throw new Refusal(`the sizes that ${describe(node)} takes are not known`);
      this.#noteSizes(value, m);
      return found;
    });
  }

  /** Everything a list of sizes is computed from belongs to the member, and shapes of what is known by now only. */
  #noteSizes(value: Value, m: number): void {
    const own = this.nodes[m] as Set<Node>;
    const { nodes: branch, stage } = (this.members[m] as RegionMember).branch;
    const open = [value];
    for (let at = open.pop(); at; at = open.pop()) {
      const node = at.producer;
      if (!node || own.has(node)) continue;
      if (!isShapeQuery(node)) {
        // Lists computed from data are no arithmetic on sizes.
        if (branch.has(node)) throw new Refusal(`${describe(node)} computes sizes from data`);
        own.add(node);
        for (const operand of node.inputs) if (operand) open.push(operand);
        continue;
      }
      const operand = operandOf(node, 0);
      const isKnown = this.counterparts[m]?.has(operand) ?? false;
      const isInside = operand.producer !== null && branch.has(operand.producer);
      const isNorm = isSame(operand, stage.start, this.types) || matchNorm(operand, stage.start, this.types) !== null;
      if (isInside && !isKnown && !isNorm) throw new Refusal(`${describe(node)} reads a shape that is not known yet`);
      own.add(node);
    }
  }

  /** Reads one value of each member. `parts` says how the reader cuts it up. Throws Refusal. */
  match(values: readonly Value[], parts?: Parts): State {
    const [frame] = values as [Value];
    const key = JSON.stringify(parts ?? null);
    const known = this.#known.get(frame);
    if (known) {
      if (known.parts !== key || known.values.some((value, m) => value !== values[m])) {
        throw new Refusal(`'${frame.name}' is used in another way in one of them`);
      }
      return known.state;
    }
    const origins = values.map(copiedFrom);
    const isCopied = origins.some((origin, m) => origin !== values[m]);
    const state = isCopied ? this.match(origins, parts) : this.#read(values, parts);
    if (isCopied) for (const [m, value] of values.entries()) this.#noteCopies(value, m);
    this.#known.set(frame, { values, parts: key, state });
    if (state.kind === 'spread') {
      this.spreads.set(frame, state.spread);
      for (const [m, value] of values.entries()) (this.counterparts[m] as Map<Value, Value>).set(value, frame);
    }
    return state;
  }

  #noteCopies(value: Value, m: number): void {
    const origin = copiedFrom(value);
    for (let at = value; at !== origin; at = at.producer?.input(0) as Value) {
      (this.nodes[m] as Set<Node>).add(at.producer as Node);
    }
  }

  /** Operand `index` of all nodes; null where it is absent. */
  operand(nodes: readonly Node[], index: number, parts?: Parts, takesScale = false): State | null {
    const values = nodes.map((node) => node.input(index));
    if (values.every((value) => value === null)) return null;
    if (values.some((value) => value === null)) throw this.unlike(nodes);
    const state = this.match(values as Value[], parts);
    if (state.kind === 'spread' && state.spread.scale && !takesScale) {
      throw new Refusal(`${describe(nodes[0])} follows a norm per head whose weights differ from layer to layer`);
    }
    return state;
  }

  /** An operand along whose `axis` (of the spread) the heads must lie. */
  headsOf(nodes: readonly Node[], index: number, parts?: Parts): Spread | null {
    const state = this.operand(nodes, index, parts);
    if (!state) return null;
    if (state.kind !== 'spread') {
      throw new Refusal(`${describe(nodes[0])} reads '${nodes[0]?.input(index)?.name}', which has no heads of its own`);
    }
    return state.spread;
  }

  /** Notes an edit; the rules of an operator with several results note theirs for each of them. */
  edit(edit: HeadEdit): void {
    const isKnown = this.edits.some((known) => known.node === edit.node && targetOf(known) === targetOf(edit));
    if (!isKnown) this.edits.push(edit);
  }

  unlike(nodes: readonly Node[]): Refusal {
    return new Refusal(`${describe(nodes[0])} of layer ${this.members[0]?.label} has no counterpart in the others`);
  }

  #read(values: readonly Value[], parts?: Parts): State {
    const [frame] = values as [Value];
    if (this.#extent ? !this.#extent.isCut(frame) : values.every((value) => value === frame)) return SHARED;
    const weights = values.map(constantOf);
    if (weights.every((weight) => weight !== null)) {
      const isOne = weights.every((weight) => weight === weights[0]);
      return isOne && !parts ? SHARED : { kind: 'constants', weights: weights as Weight[] };
    }
    if (values.some((value) => !value.producer)) return this.#readInput(values);
    const nodes = values.map((value) => value.producer as Node);
    if (isShapeQuery(nodes[0] as Node) && this.#areAlike(nodes)) return this.#note(nodes, SHARED);
    const linear = nodes[0]?.op === 'Split' ? null : this.#readLinear(values, parts);
    if (linear) return linear;
    const [first] = nodes as [Node];
    const rule = ruleFor(first, this.cutter !== null);
    const isAlike = nodes.every((node, m) => node.op === first.op && values[m]?.index === frame.index);
    if (!isAlike) throw this.unlike(nodes);
    for (const node of nodes) {
      const name = differingAttribute(first, node, rule?.varying ?? []);
      if (name !== null) throw new Refusal(`${describe(first)} has another ${name} in one of them`);
    }
    this.#note(nodes, SHARED);
    const early = rule?.early?.(this, nodes, frame.index, parts);
    if (early) return early;
    if (rule?.readsSizes && !parts) {
      const state = this.operand(nodes, 0, undefined, rule.carriesScale);
      if (state?.kind === 'spread' && rule.late) return rule.late(this, nodes, frame.index, [state]);
    }
    const count = Math.max(...nodes.map((node) => node.inputs.length));
    const states = Array.from({ length: count }, (_, i) => this.operand(nodes, i));
    if (states.every((state) => !state || state.kind === 'shared')) return SHARED;
    const isSizes = states.every((state) => !state || state.kind === 'shared' || state.kind === 'sizes');
    if (isSizes && SIZE_OPS.has(first.op)) return this.settled(frame);
    if (rule?.late && !parts) return rule.late(this, nodes, frame.index, states);
    throw new Refusal(`${describe(first)} stands between the projections, and where it puts the heads is not known`);
  }

  /** Integers that turn out not to depend on what changes are the same for all. */
  settled(value: Value): State {
    const elements = this.dimensions.elements(value);
    return elements?.every(({ grows }) => !grows) ? SHARED : { kind: 'sizes' };
  }

  #note(nodes: readonly Node[], state: State): State {
    for (const [m, node] of nodes.entries()) (this.nodes[m] as Set<Node>).add(node);
    return state;
  }

  /** Shapes of norms, of the stream itself and of what only they feed are equal in all members. */
  #areAlike(nodes: readonly Node[]): boolean {
    return nodes.every((node, m) => {
      const value = node.input(0);
      const { stage } = (this.members[m] as RegionMember).branch;
      if (!value) return false;
      return isSame(value, stage.start, this.types) || matchNorm(value, stage.start, this.types) !== null;
    });
  }

  #readInput(values: readonly Value[]): State {
    const [frame] = values as [Value];
    const isCache = values.every((value, m) => kvInputsOf(this.members[m] as RegionMember).includes(value));
    if (!isCache) throw new Refusal(`each of them reads another '${frame.name}'`);
    const shapes = values.map((value) => value.shape);
    // Keys and values in one cache: [2, batch, heads, tokens, size].
    const axis = shapes[0]?.length === 5 && shapes[0][0] === 2 ? 2 : 1;
    const sizes = shapes.map((shape) => (shape?.length === axis + 3 ? shape[axis] : null));
    if (!sizes.every((size) => typeof size === 'number')) {
      throw new Refusal(`the number of heads in the cache '${frame.name}' is not known`);
    }
    const dims = (shapes[0] ?? []).map((dim) => (typeof dim === 'number' ? dim : null));
    const heads = sizes as number[];
    const cuts = this.cutter ? { cuts: heads.slice(0, 1).map((count) => (this.cutter as Cutter).heads(count)) } : {};
    const spread: Spread = { dims, axis, from: axis, parts: [heads], ...cuts };
    this.caches.set(frame, values);
    return { kind: 'spread', spread };
  }

  #readLinear(values: readonly Value[], parts?: Parts): State | null {
    const linears = values.map(matchLinear);
    if (linears.some((linear) => !linear)) return null;
    const all = linears as Linear[];
    // A product with a constant that is computed for all ranks alike, as of positions.
    if (this.#extent && !this.#extent.first.has((all[0] as Linear).node)) return null;
    const own = this.addLinear(all, parts ?? [all.map((linear) => linear.outWidth)]);
    const rank = this.dimensions.shape(values[0] as Value)?.length ?? 3;
    const dims = [...new Array<null>(rank - 1).fill(null), all[0]?.outWidth ?? null];
    return { kind: 'spread', spread: { dims, axis: rank - 1, from: rank - 1, ...own } };
  }

  /** Notes a projection into heads, and says how it is cut. Throws Refusal where it is none of the members' norms. */
  addLinear(all: readonly Linear[], parts: Parts, isInner = false): Portions {
    if (this.cutter) this.#checkReplicated(all[0] as Linear);
    const readings = this.cutter ? [] : this.#noteNorms(all);
    for (const [m, { outWidth, output }] of all.entries()) {
      if (outWidth !== parts.reduce((sum, part) => sum + (part[m] as number), 0)) {
        throw new Refusal(`'${output.name}' is not as wide as its reader says`);
      }
    }
    const cuts = this.cutter && parts.map(([count = 0]) => (this.cutter as Cutter).channels(count));
    const portions: Portions = cuts ? { parts, cuts } : { parts };
    // Operators with several results are read for each of them.
    const isKnown = this.linears.some(({ linears: [known] }) => known?.output === all[0]?.output);
    if (!isKnown) this.linears.push({ linears: all, readings, isInner, ...portions });
    return portions;
  }

  #noteNorms(all: readonly Linear[]): NormReading[] {
    return all.map((linear, m) => {
      const { stage } = (this.members[m] as RegionMember).branch;
      const reading = readNorm(linear, stage.start, this.types);
      const known = this.norms[m];
      if (known && known.output !== reading.norm.output) throw new Refusal('their projections read more than one norm');
      this.norms[m] = reading.norm;
      return reading;
    });
  }

  #checkReplicated({ node, input }: Linear): void {
    if (!this.#extent?.isCut(input)) return;
    throw new Refusal(`${describe(node)} is a projection of what is cut, and not the last one`);
  }
}

function kvInputsOf({ branch }: RegionMember): readonly Value[] {
  return branch.role === 'attention' ? branch.attention.kvInputs : [];
}
