import { definePass } from '../framework/pass.js';

/** Graph inputs and outputs are the model's interface and stay. */
export const dropDead = definePass({
  id: 'drop-dead',
  summary: 'remove nodes and initializers that nothing reads',
  effect: 'exact',
  isAuxiliary: true,
  options: {},
  statistics: { nodes: 'nodes removed', initializers: 'initializers removed' },
  run({ graph, rewriter, missed, count }) {
    if (graph.outputs.length === 0) {
      missed('the graph has no outputs: nothing is known to be needed, and so nothing to be dead');
      return;
    }
    for (const node of [...graph.nodes()].reverse()) rewriter.eraseIfDead(node);
    for (const value of graph.initializers) rewriter.dropIfUnused(value);
    count('nodes', rewriter.erasedNodes);
    count('initializers', rewriter.erasedInitializers);
  },
});
