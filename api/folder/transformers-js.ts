/** What transformers.js reads in config.json: how many data files a model has, which it looks for by its own names. */
import { posix } from 'node:path';
import { isJsonObject, type JsonText } from '../basics/json-text.js';

const SETTINGS = ['transformers.js_config'];
const MOST_CHUNKS = 100;
const FORMAT = [...SETTINGS, 'use_external_data_format'];

/** Whether the folder is one for transformers.js. */
export function readsTransformersJs(config: JsonText): boolean {
  return isJsonObject(config.get(SETTINGS));
}

/**
 * Says how many data files a model has: model.onnx_data, model.onnx_data_1 and so on. The setting is a number (or true, for
 * one) for all models, or an object with a number for each, by the name of its file with or without what follows the first
 * point or underscore. Returns what a person should know.
 */
export function rewriteChunkCount(config: JsonText, model: string, chunks: number): readonly string[] {
  if (!readsTransformersJs(config)) return [];
  const file = posix.basename(model);
  const said = config.get(FORMAT);
  if (isJsonObject(said)) {
    const stem = file.replace(/(_(fp16|bf16|q8|int8|uint8|q4|q4f16|bnb4|quantized|q2|q2f16|q1|q1f16))?\.onnx$/, '');
    const key = Object.hasOwn(said, file) || !Object.hasOwn(said, stem) ? file : stem;
    if (Number(said[key] ?? 0) !== chunks) config.set([...FORMAT, key], chunks);
  } else if (Number(said ?? 0) !== chunks) config.set(FORMAT, chunks);
  return chunks > MOST_CHUNKS ? [`transformers.js reads at most ${MOST_CHUNKS} data files, not ${chunks}`] : [];
}
