/**
 * Attentions on one sum that can be computed as one: read side by side from their output projections back to the norms.
 * Nothing is changed here (concat-attention does that).
 */

import type { Node, Value } from '../../../../ir/core.js';
import { type BranchWords, readTail, skipBias } from '../../layers/ffn.js';
import type { Norm } from '../../layers/norm.js';
import { isShapeQuery, type Point, type ResidualStream } from '../../layers/residual-stream.js';
import type { Linear } from '../../matrices/linear.js';
import { describe, Refusal } from '../../refusal.js';
import { constantOf, numbersOf, type Slot } from '../../values/constants.js';
import type { ElementTypes } from '../../values/element-types.js';
import { type AttentionMember, HeadRegion } from '../region.js';
import type { Spread } from '../spread.js';

/** Attentions on one sum that can be put side by side. */
export interface ParallelAttention {
  readonly members: readonly AttentionMember[];
  readonly region: HeadRegion;
  readonly norms: readonly Norm[];
  readonly outputs: readonly { readonly linear: Linear; readonly bias: Slot | null }[];
  /** Cache outputs, of all members each. */
  readonly presents: readonly (readonly Value[])[];
}

/** Reads the members at the same time. Throws Refusal with the reason where they cannot be one. */
export function matchAttentions(
  members: readonly AttentionMember[],
  { types }: ResidualStream,
  opset: number,
): ParallelAttention {
  const [first] = members as [AttentionMember];
  for (const { label, branch } of members) {
    if (branch.attention.blocked) throw new Refusal(`layer ${label}: ${branch.attention.blocked}`);
    const readers = branch.output.uses.filter(({ node }) => !isShapeQuery(node));
    if (readers.length > 1 || branch.output.isGraphOutput) {
      throw new Refusal(`'${branch.output.name}', the result of layer ${label}, is read by itself`);
    }
    if (branch.attention.kvInputs.some((value) => value.graph !== branch.output.graph)) {
      throw new Refusal('their caches belong to the graph around the decoder');
    }
  }
  const tails = members.map(({ branch }) => tailOf(branch.output, branch.stage.end, types));
  const [tail] = tails as [(typeof tails)[number]];
  for (const other of tails) {
    if (other.tail !== tail.tail || other.down.matrix.format !== tail.down.matrix.format) {
      throw new Refusal('their output projections differ in more than weights');
    }
  }
  const region = new HeadRegion(members, types, opset);
  const heads = region.match(tails.map(({ down }) => down.input));
  const spread = heads.kind === 'spread' ? heads.spread : null;
  const isLast = spread && spread.from === spread.axis && spread.axis === spread.dims.length - 1;
  const fits =
    isLast && spread.parts.length === 1 && tails.every(({ down }, m) => spread.parts[0]?.[m] === down.inWidth);
  if (!fits) throw new Refusal('their output projections do not read heads one after another');
  const caches = members.map(({ branch }) => branch.attention.kvOutputs);
  if (caches.some((list) => list.length !== caches[0]?.length)) throw new Refusal('their caches differ in number');
  const presents = (caches[0] ?? []).map((_, i) => caches.map((list) => list[i] as Value));
  for (const values of presents) {
    if (region.match(values).kind !== 'spread') throw new Refusal(`the cache '${values[0]?.name}' holds no heads`);
  }
  checkProjections(region);
  for (const [m, { label, branch }] of members.entries()) {
    const { kvOutputs } = branch.attention;
    checkReaders(region, m, { label, kvOutputs }, tails[m]?.down as Linear);
  }
  const outputs = tails.map(({ down, downBias }) => ({ linear: down, bias: downBias }));
  if (first.branch.attention.kvInputs.length !== region.caches.size)
    throw new Refusal('they read caches in another way');
  return { members, region, norms: region.norms as Norm[], outputs, presents };
}

function tailOf(output: Value, end: Point, types: ElementTypes): ReturnType<typeof readTail> {
  const tail = readTail(output, skipBias(output, end), types, WORDS);
  return { ...tail, down: asProduct(tail.down) };
}

const WORDS: BranchWords = {
  projection: 'their output projection',
  merged: 'one attention',
  afterNorm: 'a sum of such attentions is no single one',
};

/** A flattened linear as the product alone: how its input is flattened is read like everything else. */
function asProduct(linear: Linear): Linear {
  const { node, matrix, outWidth, isPlain, start } = linear;
  if (isPlain || start > 0 || outWidth !== matrix.outWidth) return linear;
  return { ...linear, input: node.input(0) as Value, output: node.output(0) as Value, isPlain: true };
}

function checkProjections({ norms, linears }: HeadRegion): void {
  const [first] = norms;
  if (linears.length === 0 || !first) throw new Refusal('no projection into heads was found');
  for (const norm of norms) {
    const isAlike =
      norm?.kind === first.kind &&
      norm.eps === first.eps &&
      !norm.beta === !first.beta &&
      norm.rounding === first.rounding;
    if (!isAlike) throw new Refusal('their norms differ in more than weights');
  }
  for (const { linears: members } of linears) {
    const [linear] = members as [Linear];
    const isAlike = members.every(
      (other) => other.matrix.format === linear.matrix.format && !other.bias === !linear.bias,
    );
    if (!isAlike) throw new Refusal('their projections differ in more than weights');
  }
}

/** Everything that has heads is read inside the branch, or only for its shape. Throws Refusal. */
export function checkReaders(
  region: HeadRegion,
  m: number,
  { label, kvOutputs }: { readonly label: string; readonly kvOutputs: readonly Value[] },
  output: Linear,
): void {
  const own = region.nodes[m] as ReadonlySet<Node>;
  const followed = region.counterparts[m] as ReadonlyMap<Value, Value>;
  for (const node of new Set([...followed.keys()].map(({ producer }) => producer))) {
    // What an operator gives beside a result that has heads has them, too.
    const other =
      node && own.has(node) && node.outputs.find((value) => value && !value.isUnused && !followed.has(value));
    if (other) throw new Refusal(`'${other.name}', inside layer ${label}, is read where its heads are not followed`);
  }
  for (const [value, frame] of followed) {
    const spread = region.spreads.get(frame) as Spread;
    if (value.isGraphOutput && !kvOutputs.includes(value)) {
      throw new Refusal(`'${value.name}', inside layer ${label}, is a graph output`);
    }
    for (const { node } of value.uses) {
      if ((own.has(node) && !isShapeQuery(node)) || isUnread(node)) continue;
      if (
        value === output.input &&
        (node === output.node || node.output(0)?.uses.some((use) => use.node === output.node))
      ) {
        continue;
      }
      const isShape = isShapeQuery(node) && spread.from === spread.axis;
      if (isShape && isHarmless(node, spread.axis, region)) continue;
      throw new Refusal(`${describe(node)}, outside the attention of layer ${label}, reads '${value.name}'`);
    }
  }
}

function isUnread(node: Node): boolean {
  return node.outputs.every((value) => !value || value.isUnused);
}

/** True for a Shape of which the dimension `axis` is used by nothing, or inside the attentions only. */
function isHarmless(shape: Node, axis: number, region: HeadRegion): boolean {
  const [start, end] = [shape.intAttribute('start') ?? 0, shape.intAttribute('end') ?? Number.POSITIVE_INFINITY];
  if (shape.op === 'Shape' && start >= 0 && end >= 0 && (axis < start || axis >= end)) return true;
  const result = shape.output(0) as Value;
  return (
    !result.isGraphOutput && result.uses.every(({ node }) => picksOther(node, axis - start) || isInside(node, region))
  );
}

function picksOther(node: Node, axis: number): boolean {
  const read = (i: number): number[] | null => numbersOf(constantOf(node.input(i)));
  if (node.op === 'Gather') return read(1)?.every((index) => index >= 0 && index !== axis) ?? false;
  const [start, end] = node.op === 'Slice' ? [read(1)?.[0] ?? -1, read(2)?.[0] ?? -1] : [-1, -1];
  return start >= 0 && end >= 0 && (axis < start || axis >= end);
}

/** True when only the attentions that become one compute with the results of a node. */
function isInside(first: Node, { nodes, counterparts }: HeadRegion): boolean {
  const open = [first];
  for (let node = open.pop(); node; node = open.pop()) {
    const at = node;
    if (!nodes.some((own) => own.has(at))) return false;
    for (const result of node.outputs) {
      if (!result || counterparts.some((values) => values.has(result))) continue;
      if (result.isGraphOutput) return false;
      open.push(...result.uses.map((use) => use.node));
    }
  }
  return true;
}
