/**
 * A graph in pieces that run by themselves: a rank's is cut at its collectives, one larger than memory by its weights. A value belongs to the segment in which
 * everything that it is computed from is there: the result of a collective is there one segment after what it is made of.
 */
import type { Graph, Model, Node, Value } from '../../ir/core.js';
import { tensorType } from '../../ir/type.js';
import { inferElementTypes } from '../../passes/analysis/values/element-types.js';
import { type Collective, capturesOf, Rewriter } from '../../passes/index.js';
import { runtimeErrors } from '../session/errors.js';
import { readSignature } from '../signature/signature.js';

/** What a segment takes and gives, by the names the values have in the rank's graph. */
export interface Segment {
  /** Graph inputs that it reads. */
  readonly inputs: readonly string[];
  /** Values of segments before, and results of collectives, that it reads. */
  readonly carried: readonly string[];
  /** Values that it gives: to later segments, to a collective, or as graph outputs. */
  readonly outputs: readonly string[];
}

/** A collective between two segments. */
export interface Meeting {
  readonly kind: Collective['kind'];
  /** Of a gather; the first dimension of a DistCollective. */
  readonly axis: number;
  readonly gives: string;
  /** The graph output of the group where no node reads it. */
  readonly gets: string | null;
}

/** A rank's graph, divided at its collectives into segments that run one after another. */
export interface RankSegments {
  readonly segments: readonly Segment[];
  /** After each segment: the collectives that need nothing more. */
  readonly meetings: readonly (readonly Meeting[])[];
}

/** One rank of a group: segments that run one after another, with collectives between them. */
export interface RankChain extends RankSegments {
  /** What the rank is called in messages. */
  readonly place: string;
  /** Outputs of the rank, those apart that are only its part of something. */
  readonly outputs: readonly string[];
  /** Those among them that continue caches: behind what was written they hold anything. */
  readonly caches: readonly string[];
  /** The model of a segment, read anew. */
  readonly open: (segment: number) => Model;
}

/** The chain of a rank whose model lies in one piece: `open` reads it anew. `borders` as for `cutAtCollectives`. */
export function chainOf(open: () => Model, borders: readonly Collective[], place: string): RankChain {
  const whole = open();
  const division = cutAtCollectives(whole, borders);
  const { outputs, caches } = readSignature(whole);
  const partial = new Set(borders.flatMap(({ gives, gets }) => (gets === null ? [] : [gives])));
  return {
    ...division,
    place,
    outputs: outputs.map(({ name }) => name).filter((name) => !partial.has(name)),
    caches: caches.flatMap(({ output }) => output ?? []),
    open: (index) => {
      const model = open();
      cutSegment(model, division.segments[index] as Segment);
      return model;
    },
  };
}

/** Of no segment: constants, which every segment has for itself. */
const EVERYWHERE = -1;

/** What a node does between ranks; null for a node that computes. Throws OF_NOT_COMPARABLE for a form we do not write. */
function meetingOf(node: Node): Omit<Meeting, 'gives' | 'gets'> | null {
  switch (node.op) {
    case 'com.microsoft.AllReduce':
      return { kind: 'all-reduce', axis: 0 };
    case 'com.microsoft.AllGather':
      return { kind: 'all-gather', axis: node.intAttribute('axis') ?? 0 };
    case 'DistCollective': {
      const word = node.stringAttribute('collective_operation');
      if (word === 'all_reduce' && node.stringAttribute('reduce_op') === 'sum') return { kind: 'all-reduce', axis: 0 };
      if (word === 'all_gather') return { kind: 'all-gather', axis: 0 };
      throw runtimeErrors.notComparable(node.name, `DistCollective '${word}' is none that is simulated`);
    }
  }
  return null;
}

/** Divides a rank's model into segments at its collectives. `borders` are collectives that have no node, between an output and an input. */
export function cutAtCollectives({ graph }: Model, borders: readonly Collective[]): RankSegments {
  const level = new Map<Value, number>();
  const meetings: Meeting[][] = [];
  const at = (value: Value): number => level.get(value) ?? (value.initializer || value.isSparse ? EVERYWHERE : 0);
  const meet = (after: number, meeting: Meeting): void => {
    while (meetings.length <= after) meetings.push([]);
    meetings[after]?.push(meeting);
  };
  const byGiven = new Map(borders.map((border) => [border.gives, border]));
  const noteBorder = (value: Value): void => {
    const border = byGiven.get(value.name);
    if (!border) return;
    const gets = border.gets === null ? null : graph.value(border.gets);
    if (gets) level.set(gets, at(value) + 1);
    meet(at(value), { kind: border.kind, axis: border.axis ?? 0, gives: border.gives, gets: border.gets });
  };
  const computed: Node[] = [];
  for (const node of graph.nodes()) {
    const reads = readsOf(node);
    const own = Math.max(EVERYWHERE, ...reads.map(at));
    const meeting = meetingOf(node);
    for (const value of node.outputs) if (value) level.set(value, meeting ? own + 1 : own);
    if (meeting) {
      const [given, got] = [node.input(0) as Value, node.output(0) as Value];
      meet(own, { ...meeting, gives: given.name, gets: got.name });
    } else {
      computed.push(node);
      for (const value of node.outputs) if (value) noteBorder(value);
    }
  }
  const borderInputs = new Set(borders.flatMap(({ gets }) => gets ?? []));
  const given = meetings.map((list) => list.map(({ gives }) => gives));
  return { segments: segmentsOf(graph, computed, meetings.length + 1, at, given, borderInputs), meetings };
}

/**
 * Divides a model into segments of at most `bytes` of weights each, that run one after another without anything in between; a node
 * with more is a segment of its own. What is computed from constants alone is in every segment that reads it.
 */
export function cutByWeights({ graph }: Model, bytes: number): Segment[] {
  const level = new Map<Value, number>();
  const constant = new Map<Value, readonly Value[]>();
  const at = (value: Value): number => level.get(value) ?? (value.initializer || value.isSparse ? EVERYWHERE : 0);
  let held = new Map<string, number>();
  let current = 0;
  const nodes = [...graph.nodes()];
  for (const node of nodes) {
    const reads = readsOf(node);
    const own = reads.flatMap((value) => (value.initializer ? [value] : (constant.get(value) ?? [])));
    if (reads.every((value) => at(value) === EVERYWHERE)) {
      for (const value of node.outputs) if (value) level.set(value, EVERYWHERE);
      for (const value of node.outputs) if (value) constant.set(value, own);
      continue;
    }
    const more = new Map(
      own.map(({ initializer }) => [initializer?.weight?.key ?? '', initializer?.weight?.byteLength ?? 0]),
    );
    const both = new Map([...held, ...more]);
    const isFull = held.size > 0 && [...both.values()].reduce((sum, each) => sum + each, 0) > bytes;
    if (isFull) current++;
    held = isFull ? more : both;
    for (const value of node.outputs) if (value) level.set(value, current);
  }
  return segmentsOf(graph, nodes, current + 1, at, [], new Set());
}

/**
 * What each of `count` segments takes and gives. `at` tells the segment of a value, `given` what is needed behind each segment
 * besides, `borders` are graph inputs that come out of collectives.
 */
function segmentsOf(
  graph: Graph,
  computed: readonly Node[],
  count: number,
  at: (value: Value) => number,
  given: readonly (readonly string[])[],
  borders: ReadonlySet<string>,
): Segment[] {
  const sets = Array.from({ length: count }, () => ({
    inputs: new Set<string>(),
    carried: new Set<string>(),
    outputs: new Set<string>(),
  }));
  const isFed = (value: Value): boolean => value.isInput && !borders.has(value.name);
  const produced = new Set(computed.flatMap((node) => node.outputs));
  const need = (value: Value, from: number): void => {
    const own = at(value);
    if (own === EVERYWHERE) return;
    if (isFed(value)) sets[from]?.inputs.add(value.name);
    else if (own < from || !produced.has(value)) sets[from]?.carried.add(value.name);
    if (own < from && produced.has(value)) sets[own]?.outputs.add(value.name);
  };
  for (const node of computed) {
    const own = Math.max(EVERYWHERE, ...node.outputs.map((value) => (value ? at(value) : EVERYWHERE)));
    if (own !== EVERYWHERE) for (const value of readsOf(node)) need(value, own);
  }
  for (const [after, names] of given.entries()) {
    for (const name of names) {
      const value = graph.value(name);
      if (value && produced.has(value)) sets[after]?.outputs.add(name);
    }
  }
  for (const value of graph.outputs) {
    if (produced.has(value)) sets[Math.max(at(value), 0)]?.outputs.add(value.name);
  }
  return sets.map(({ inputs, carried, outputs }) => ({
    inputs: [...inputs],
    carried: [...carried],
    outputs: [...outputs],
  }));
}

function readsOf(node: Node): Value[] {
  const operands = node.inputs.filter((value) => value !== null) as Value[];
  return [...operands, ...node.subgraphs.flatMap((graph) => [...capturesOf(graph)])];
}

/**
 * Turns a rank's model, in place, into one of its segments. What it takes and gives keeps its names.
 * @throws Diagnostic OF_NOT_COMPARABLE where the element type of what it takes cannot be told.
 */
export function cutSegment({ graph }: Model, { inputs, carried, outputs }: Segment): void {
  const types = inferElementTypes(graph);
  for (const value of new Set(graph.outputs)) graph.removeOutput(value);
  const names = new Map<Value, string>();
  for (const name of carried) {
    const value = graph.value(name) as Value;
    if (value.isInput) continue;
    const dtype = types.get(value);
    if (!dtype) throw runtimeErrors.notComparable(name, 'its element type, which a segment must state, is not known');
    const given = graph.addInput(graph.names.fresh(name), value.type ?? tensorType(dtype, null));
    graph.replaceUses(value, given);
    names.set(given, name);
  }
  for (const name of outputs) graph.addOutput(graph.value(name) as Value);
  dropDead(graph);
  const kept = new Set([...inputs, ...carried]);
  for (const value of [...graph.inputs]) {
    if (!kept.has(names.get(value) ?? value.name) && value.isUnused) graph.removeInput(value);
  }
  // What made the values lies in segments before: their names are free.
  if (names.size > 0) graph.renameValues(names);
}

function dropDead(graph: Graph): void {
  const rewriter = new Rewriter(graph);
  for (const node of [...graph.nodes()].reverse()) rewriter.eraseIfDead(node);
  for (const value of graph.initializers) rewriter.dropIfUnused(value);
}
