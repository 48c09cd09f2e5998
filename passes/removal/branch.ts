/** Taking one branch out of the sum that it is a term of, with or without something in its place. */
import type { Node, Value } from '../../ir/core.js';
import { branchesInto, isSumUpTo, type ResidualStream, type Stage } from '../analysis/layers/residual-stream.js';
import type { Rewriter } from '../rewrite/rewriter.js';

/** What takes the place of a branch. */
export type StandIn =
  /** A term of the sum, made in front of it. */
  | { readonly kind: 'term'; readonly make: (sum: Node) => Value }
  /** A constant vector, [hidden], that the sum takes up with the stream. */
  | { readonly kind: 'constant'; readonly name: string; readonly vector: Value };

/** Takes `output` out of the sum of `stage`; `nodes` are those that may die with it besides those that compute it. */
export function takeOut(
  { stage, output, nodes }: { readonly stage: Stage; readonly output: Value; readonly nodes: readonly Node[] },
  stream: ResidualStream,
  standIn: StandIn | null,
  rewriter: Rewriter,
): void {
  const isSum = isSumUpTo(stage.end, stage.start, stream.position);
  if (standIn?.kind === 'term') rewriter.replaceTerm(output, isSum, standIn.make);
  else {
    if (standIn) rewriter.addToTerm(stage.root as Value, isSum, standIn.vector, standIn.name);
    rewriter.dropTerm(output, isSum);
  }
  rewriter.eraseProducer(output);
  for (const node of [...nodes].reverse()) rewriter.eraseIfDead(node);
  if ('opType' in stage.start) rewriter.tidySkipNorm(stage.start, branchesInto(stream, stage.start));
}
