/** The flags of the options that the layers below speak of. They name options by meaning, as `option keep-last`. */

/** What a person types for each option, as messages mention it: `--no-verify` for the check that can be left out. */
export const FLAGS: ReadonlyMap<string, string> = new Map([
  ['accept', '--accept'],
  ['allow-fallback', '--allow-fallback'],
  ['batch', '--batch'],
  ['context', '--context'],
  ['data', '--data'],
  ['decode', '--decode'],
  ['device', '--device'],
  ['force', '--force'],
  ['generate', '--generate'],
  ['held-out', '--held-out'],
  ['keep-going', '--keep-going'],
  ['keep-last', '--keep-last'],
  ['kv-naming', '--kv-naming'],
  ['length', '--length'],
  ['lm-head', '--lm-head'],
  ['map-rank', '--map-rank'],
  ['max-kl', '--max-kl'],
  ['max-shard-size', '--max-shard-size'],
  ['max-ppl-increase', '--max-ppl-increase'],
  ['min-top1', '--min-top1'],
  ['max-evaluations', '--max-evaluations'],
  ['max-tokens', '--max-tokens'],
  ['max-width', '--max-width'],
  ['norm', '--norm last'],
  ['parallelize-blocks', '--parallelize-blocks'],
  ['prompt', '--prompt'],
  ['prompts', '--prompts'],
  ['provider', '--provider'],
  ['quantize-maps', '--quantize-maps'],
  ['recover', '--recover'],
  ['remove-attention', '--remove-attention'],
  ['require-fusion', '--require-fusion'],
  ['requantize', '--requantize'],
  ['rounds', '--rounds'],
  ['runs', '--runs'],
  ['runtime', '--runtime'],
  ['share-weights', '--share-weights'],
  ['external', '--external'],
  ['target-speedup', '--target-speedup'],
  ['tokenizer', '--tokenizer'],
  ['tp', '--tp'],
  ['verify', '--no-verify'],
]);

/** How a text mentions an option. */
export const MENTION = /\boption ([a-z]+(?:-[a-z0-9]+)*)/g;

/** A text of the layers below with flags for the options in it. */
export function withFlags(text: string): string {
  return text.replace(MENTION, (mention, option: string) => FLAGS.get(option) ?? mention);
}
