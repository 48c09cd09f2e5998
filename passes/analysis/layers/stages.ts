/**
 * The stages of a residual stream between an embedding and an output.
 *
 * Cut points give most of them. Where something bypasses the stream, the stretch between two cut points may hold many
 * layers: a later attention reads the keys of an earlier one (Gemma 3n, Gemma 4), every layer reads an embedding of its own.
 * Such a stretch is walked back from its end: of the terms of a sum, the one that all others are computed from is the stream.
 * Where there is no such sum, the walk goes on at the nearest point that everything from there passes through.
 */
import { Value } from '../../../ir/core.js';
import type { ElementTypes } from '../values/element-types.js';
import {
  isSame,
  type Point,
  pointOf,
  privateOrigin,
  type Stage,
  shiftedBy,
  sumOperands,
  takesUp,
  throughAliases,
  widenedFrom,
} from './residual-stream.js';

/** What each point of the graph reads of those that depend on the embedding, in the order in which they are computed. */
export type Reached = ReadonlyMap<Point, readonly Point[]>;

/** The stages up to `output`, and the position of every point that lies on a path to it. */
export function stagesBetween(
  types: ElementTypes,
  reached: Reached,
  output: Point,
): { stages: Stage[]; position: ReadonlyMap<Point, number> } {
  const path = pathTo(output, reached);
  const position = new Map(path.map((point, i) => [point, i]));
  // A point is a cut when no edge from before it ends after it.
  const furthest = new Array<number>(path.length).fill(0);
  for (const [i, point] of path.entries()) {
    for (const read of reached.get(point) ?? []) furthest[position.get(read) as number] = i;
  }
  const cuts: Point[] = [];
  let reach = 0;
  for (const [i, point] of path.entries()) {
    if (reach <= i) cuts.push(point);
    reach = Math.max(reach, furthest[i] as number);
  }
  const walk = new Walk(path, position, reached, types);
  const stages: Stage[] = [];
  for (let i = 1; i < cuts.length; i++) {
    for (const piece of walk.stagesOf(cuts[i - 1] as Point, cuts[i] as Point)) {
      stages.push({ ...piece, index: stages.length });
    }
  }
  return { stages, position };
}

/** The points on paths to `output`, in the order in which they are computed. */
function pathTo(output: Point, reached: Reached): Point[] {
  const onPath = new Set<Point>([output]);
  const order = [...reached.keys()];
  for (let i = order.length - 1; i >= 0; i--) {
    const point = order[i] as Point;
    if (onPath.has(point)) for (const read of reached.get(point) ?? []) onPath.add(read);
  }
  return order.filter((point) => onPath.has(point));
}

type Piece = Omit<Stage, 'index'>;

class Walk {
  constructor(
    readonly path: readonly Point[],
    readonly position: ReadonlyMap<Point, number>,
    readonly reached: Reached,
    readonly types: ElementTypes,
  ) {}

  /** The stages between two neighbouring cut points: usually one. */
  stagesOf(start: Point, end: Point): Piece[] {
    const { types, position } = this;
    const after = position.get(start) as number;
    const terms = this.#terms(end, after, (term) => isSame(term, start, types));
    const root = terms.find((term) => takesUp(term, start, types)) ?? null;
    const branches = terms.filter((term) => !takesUp(term, start, types));
    // A term that does not depend on the start (a position embedding) makes no branch.
    const depends = branches.length > 0 && branches.every((term) => position.has(pointOf(term)));
    // A sum that takes up the stream twice, or one branch twice, is no residual sum.
    const areOnce = branches.length === terms.length - 1 && new Set(branches).size === branches.length;
    if (root && depends && areOnce) return [{ start, end, root, branches, isResidual: true, isBypassed: false }];
    return this.#walkBack(start, end) ?? [plain(start, end, false)];
  }

  /** The stages of a stretch that something bypasses; null when it holds no residual stage. */
  #walkBack(start: Point, end: Point): Piece[] | null {
    const after = this.position.get(start) as number;
    if ((this.position.get(end) as number) - after < 2) return null;
    const dominators = this.#dominators(start, end);
    const pieces: Piece[] = [];
    for (let at = end; at !== start; ) {
      const piece = this.#residualInto(at, after) ?? plain(dominators.get(at) as Point, at, true);
      pieces.unshift(piece);
      at = piece.start;
    }
    return pieces.some((piece) => piece.isResidual) ? pieces : null;
  }

  /** The residual stage that ends at `at`: one term of its sum is what all the others are computed from. */
  #residualInto(at: Point, after: number): Piece | null {
    const { position, types } = this;
    const terms = this.#terms(at, after, () => false);
    if (terms.length < 2 || terms.some((term) => !position.has(pointOf(term)))) return null;
    if (new Set(terms).size < terms.length) return null;
    for (const root of terms) {
      const branches = terms.filter((term) => term !== root);
      const points = branches.map(pointOf);
      // Branches of one sum do not read each other.
      if (points.some((a) => points.some((b) => a !== b && this.#dependsOn(b, a)))) continue;
      const origin = throughAliases(root, types);
      const start = [root, origin, widenedFrom(origin, types)]
        .flatMap((value) => (value ? [pointOf(value)] : []))
        .find(
          (point) => (position.get(point) ?? -1) >= after && points.every((other) => this.#dependsOn(other, point)),
        );
      if (start) return { start, end: at, root, branches, isResidual: true, isBypassed: true };
    }
    return null;
  }

  /**
   * Terms of the sum at `end`. Nested sums are flattened as long as they lie behind position `after`, nobody else reads them
   * and all of their operands depend on the embedding (a bias that an Expand makes as wide as the stream belongs to the
   * branch that it is added to); a copy (Identity, a Cast that changes nothing) in between does not matter.
   */
  #terms(end: Point, after: number, isStart: (term: Value) => boolean): Value[] {
    const { position, types } = this;
    const terms: Value[] = [];
    const open = sumOperands(end).reverse();
    while (open.length > 0) {
      const term = open.pop() as Value;
      const inner = isStart(term) ? null : privateOrigin(term, types);
      const point = inner && pointOf(inner);
      const isNested = point instanceof Value && (position.get(point) ?? -1) > after;
      const operands = isNested ? this.#operands(point, isStart) : [];
      const areActive = operands.length > 0 && operands.every((operand) => position.has(pointOf(operand)));
      if (areActive) open.push(...operands.reverse());
      else terms.push(term);
    }
    return terms;
  }

  /**
   * The terms of a sum inside the sum of a stage. A constant that is added to the stream is none: a bias that stands in the
   * place of a branch changes nothing about the others. One that is added to branches alone is part of them.
   */
  #operands(point: Point, isStart: (term: Value) => boolean): Value[] {
    const shifted = shiftedBy(point);
    return shifted ? (this.#holdsStart(shifted, isStart) ? [shifted] : []) : sumOperands(point);
  }

  #holdsStart(term: Value, isStart: (term: Value) => boolean): boolean {
    if (isStart(term)) return true;
    const inner = privateOrigin(term, this.types);
    return inner !== null && this.#operands(pointOf(inner), isStart).some((each) => this.#holdsStart(each, isStart));
  }

  /** True when `point` is computed from `from`. */
  #dependsOn(point: Point, from: Point): boolean {
    const { position, reached } = this;
    const least = position.get(from) as number;
    const seen = new Set<Point>([point]);
    const open = [point];
    for (let at = open.pop(); at !== undefined; at = open.pop()) {
      for (const read of reached.get(at) ?? []) {
        if (read === from) return true;
        if (seen.has(read) || (position.get(read) ?? -1) <= least) continue;
        seen.add(read);
        open.push(read);
      }
    }
    return false;
  }

  /** For each point between two cut points the nearest one before it that every path to it passes through. */
  #dominators(start: Point, end: Point): Map<Point, Point> {
    const { path, position, reached } = this;
    const found = new Map<Point, Point>();
    const [first, last] = [position.get(start) as number, position.get(end) as number];
    const meet = (a: Point, b: Point): Point => {
      let [left, right] = [a, b];
      while (left !== right) {
        if ((position.get(left) as number) > (position.get(right) as number)) left = found.get(left) as Point;
        else right = found.get(right) as Point;
      }
      return left;
    };
    for (const point of path.slice(first + 1, last + 1)) {
      const reads = (reached.get(point) ?? []).filter((read) => position.has(read));
      found.set(point, reads.reduce(meet));
    }
    return found;
  }
}

function plain(start: Point, end: Point, isBypassed: boolean): Piece {
  return { start, end, root: null, branches: [], isResidual: false, isBypassed };
}
