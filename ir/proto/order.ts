/** The order of a graph's nodes as the file has them, or, when it is no topological order, the nearest one that is. */
import { errors } from '../diagnostic.js';
import type { Framed } from './frame.js';

type FramedNode = Framed<'NodeProto'>;

const free = new WeakMap<Framed, ReadonlySet<string>>();

/** Names that a graph reads and does not define. */
function freeNames(graph: Framed<'GraphProto'>): ReadonlySet<string> {
  const known = free.get(graph);
  if (known) return known;
  const nodes = (graph.children.get(1) ?? []) as FramedNode[];
  const read = new Set(nodes.flatMap(readsOf));
  for (const output of (graph.children.get(12) ?? []) as Framed<'ValueInfoProto'>[])
    read.add(output.message.name ?? '');
  for (const number of [5, 11] as const) {
    for (const { message } of (graph.children.get(number) ?? []) as Framed<'ValueInfoProto'>[]) {
      read.delete(message.name ?? '');
    }
  }
  for (const node of nodes) for (const name of node.message.output ?? []) read.delete(name);
  free.set(graph, read);
  return read;
}

/** Names a node reads, those of its subgraphs included. */
function readsOf(node: FramedNode): string[] {
  const names = [...(node.message.input ?? [])];
  for (const attribute of node.children.get(5) ?? []) {
    for (const number of [6, 11]) {
      for (const graph of attribute.children.get(number) ?? []) {
        // One by one: a spread of that many arguments could overflow the stack.
        for (const name of freeNames(graph as Framed<'GraphProto'>)) names.push(name);
      }
    }
  }
  return names;
}

/** Node indices in topological order, stable. Throws OF_CYCLE. `placeOf` names a node for the message. */
export function topologicalOrder(nodes: readonly FramedNode[], placeOf: (index: number) => string): number[] {
  const producer = new Map<string, number>();
  for (const [index, node] of nodes.entries()) for (const name of node.message.output ?? []) producer.set(name, index);
  producer.delete('');
  const dependencies = nodes.map((node) =>
    readsOf(node)
      .map((name) => producer.get(name))
      .filter((index): index is number => index !== undefined),
  );
  const identity = nodes.map((_, index) => index);
  if (dependencies.every((found, index) => found.every((dependency) => dependency < index))) return identity;

  const order: number[] = [];
  const state = new Uint8Array(nodes.length); // 1: on the path, 2: placed
  for (const root of identity) {
    const path = state[root] === 2 ? [] : [{ index: root, next: 0 }];
    state[root] ||= 1;
    for (let top = path.at(-1); top; top = path.at(-1)) {
      const dependency = dependencies[top.index]?.[top.next++];
      if (dependency === undefined) {
        state[top.index] = 2;
        order.push(top.index);
        path.pop();
      } else if (state[dependency] === 1) throw errors.cycle(placeOf(dependency));
      else if (state[dependency] === 0) {
        state[dependency] = 1;
        path.push({ index: dependency, next: 0 });
      }
    }
  }
  return order;
}
