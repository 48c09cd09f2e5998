// @ts-check
/**
 * A pass of your own: one fused com.microsoft.QuickGelu where an exporter wrote x * Sigmoid(x). It says what it did as a
 * fact, which is in the report under `facts['quick-gelu']`, and as a line in the terminal.
 *
 *     onnx-fuse in.onnx out.onnx --plugin ./my-pass.mjs --pipeline quick-gelu,parallelize-ffn,concat-ffn,drop-dead
 */
import { definePass, factsAs, integerOption } from 'onnx-fuse/passes';

/** @import { Node, Value } from 'onnx-fuse/ir' */

/**
 * @typedef {object} Replaced One Sigmoid and the product with it that became one node.
 * @property {string} sigmoid name of the Sigmoid that is gone
 */

export const quickGelu = definePass({
  id: 'quick-gelu',
  summary: 'compute x * Sigmoid(x) with one QuickGelu',
  // Equal up to rounding: `onnx-fuse` checks that, at a tight tolerance, before it writes anything.
  effect: 'reassociates',
  options: { most: integerOption('replace at most so many; 0 is no limit', 0) },
  statistics: { replaced: 'pairs replaced' },
  // What it did: as data for programs (plain JSON, in any shape), and in words for a person.
  facts: factsAs(
    /** @type {import('onnx-fuse/passes').FactSpec<Replaced>} */ ({
      describe: (facts) => (facts.length > 0 ? [`${facts.length} times x * Sigmoid(x) became one QuickGelu`] : []),
    }),
  ),
  run({ model, graph, options, rewriter, passed, missed, count, fact }) {
    let replaced = 0;
    for (const sigmoid of [...graph.nodes()]) {
      if (sigmoid.op !== 'Sigmoid') continue;
      // Match completely first; say why not where it does not.
      const x = sigmoid.input(0);
      const product = x && productOf(x, sigmoid);
      if (!x || !product) {
        missed(`the result of ${sigmoid.name} does more than multiply its input`);
        continue;
      }
      if (options.most > 0 && replaced === options.most) break;
      // Then change the graph, through the rewriter.
      const old = /** @type {Value} */ (product.output(0));
      const node = graph.addNode(
        {
          opType: 'QuickGelu',
          domain: 'com.microsoft',
          name: sigmoid.name,
          inputs: [x],
          outputs: [{ name: old.name, type: old.type }],
          attributes: { alpha: { kind: 'float', value: 1 } },
        },
        { before: product },
      );
      model.requireDomain('com.microsoft', 1);
      rewriter.replaceValue(old, /** @type {Value} */ (node.output(0)));
      rewriter.eraseIfDead(product);
      replaced++;
      count('replaced');
      fact({ sigmoid: sigmoid.name });
    }
    if (replaced > 0) passed(`${replaced} times x * Sigmoid(x) is one QuickGelu`);
  },
});

/** What --plugin looks for. */
export const passes = [quickGelu];

/**
 * The Mul that multiplies `x` by its sigmoid, if that is all the sigmoid is used for.
 *
 * @param {Value} x
 * @param {Node} sigmoid
 */
function productOf(x, sigmoid) {
  const result = sigmoid.output(0);
  const [use] = result?.uses ?? [];
  if (!result || !use || result.isGraphOutput || result.useCount !== 1 || use.node.op !== 'Mul') return null;
  return use.node.input(1 - use.index) === x ? use.node : null;
}
