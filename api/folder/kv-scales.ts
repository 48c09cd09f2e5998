/**
 * Scales of quantised KV caches, as the onnxruntime-genai model builder reads them (kv_cache_scale_file): one entry per
 * layer in scales.k_scales and scales.v_scales, in the order of layer_ids, or of all layers where that is absent.
 */

import type { JsonText } from '../basics/json-text.js';
import type { CacheMap } from './cache-map.js';

/** Takes the scales of caches that went out of `file`; leaves any other file as it is. */
export function rewriteScales(file: JsonText, caches: CacheMap): void {
  const [keys, values] = [file.get(['scales', 'k_scales']), file.get(['scales', 'v_scales'])];
  if (!Array.isArray(keys) || !Array.isArray(values) || keys.length !== values.length) return;
  const given = file.get(['layer_ids']);
  const ids = Array.isArray(given) ? given : keys.map((_, layer) => layer);
  if (ids.length !== keys.length || caches.before.length === 0) return;
  const isLeft = (_: unknown, place: number): boolean => caches.kept.has(ids[place] as number);
  const left = ids.filter(isLeft).map((id) => caches.kept.get(id as number) as number);
  if (left.length === ids.length && left.every((id, place) => id === ids[place])) return;
  file.set(['scales', 'k_scales'], keys.filter(isLeft));
  file.set(['scales', 'v_scales'], values.filter(isLeft));
  // Without ids the entries stand for layers 0..n-1.
  const isDense = left.every((id, place) => id === place);
  if (Array.isArray(given) || !isDense) file.set(['layer_ids'], left);
}
