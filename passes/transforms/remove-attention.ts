/**
 * Attention removal: f(X) = X + FFN(n2(X)) instead of X + Attn(n1(X)) + FFN(...) (arXiv 2503.18908; method.md, 1.1).
 *
 *     r' = r + attention(norm(r))     becomes     r' = r
 *
 * The branch goes with its norm, its KV-cache inputs and outputs and everything only they fed.
 */
import { counted } from '../../ir/visible.js';
import { ASKED_OPTIONS } from '../framework/asked-layers.js';
import { factsAs, layersText } from '../framework/facts.js';
import { layersOption } from '../framework/options.js';
import { definePass } from '../framework/pass.js';
import { type RemovedAttention, removableAttentions, takeOutAttentions } from '../removal/attention.js';

export const removeAttention = definePass({
  id: 'remove-attention',
  scope: 'decoder',
  summary: 'remove the attention branches of chosen layers with their norms and KV caches',
  effect: 'changes-function',
  options: {
    layers: layersOption('layers whose attention goes, original numbers: 4,6-9'),
    ...ASKED_OPTIONS,
  },
  statistics: { removed: 'attention branches removed', caches: 'KV-cache inputs and outputs removed' },
  facts: factsAs<RemovedAttention>({
    describe: (removed) => {
      if (removed.length === 0) return [];
      const caches = removed.flatMap(({ kvInputs }) => kvInputs).length;
      const layers = layersText(removed.map(({ layer }) => String(layer)));
      return [`attention removed from ${layers}${caches > 0 ? ` with ${counted(caches, 'KV-cache input')}` : ''}`];
    },
    // Only one branch of a merged decoder reads caches.
    comparable: ({ layer }) => layer,
  }),
  run(context) {
    const { options, blocks, passed, refused, count, fact } = context;
    if (options.layers.length === 0) return;
    // All checks come before the first change.
    const wanted = removableAttentions(options.layers, options, blocks(), refused);
    for (const { kind, ...removed } of takeOutAttentions(context, wanted, () => null)) {
      const { layer, kvInputs, kvOutputs } = removed;
      fact(removed);
      count('removed');
      count('caches', kvInputs.length + kvOutputs.length);
      passed(`its attention (${kind}) was removed${kvInputs.length > 0 ? `, with ${kvInputs.join(', ')}` : ''}`, layer);
    }
  },
});
