/**
 * config.json (Hugging Face) and block_configs: the architecture of the result, in the form of Nemotron and ModelOpt, one
 * entry per layer of the original, so that a training framework can build the same model.
 *
 * FFNs that were made parallel are `parallel_blocks` of the run's first entry (ModelOpt and the DeciLM code of the
 * Nemotron models run such blocks on one input and add up what they compute); the run's other entries do nothing.
 */

import {
  concatFfn,
  factsOf,
  layerOfLabel,
  linearize,
  parallelizeBlocks,
  parallelizeFfn,
  removeAttention,
  removeFfn,
} from '../../passes/index.js';
import { isJsonObject, type Json, type JsonObject, type JsonPath, type JsonText } from '../basics/json-text.js';
import type { Report } from '../fuse/report.js';
import type { CacheMap } from './cache-map.js';

const COUNTS = ['num_hidden_layers', 'n_layer', 'num_layers', 'n_layers'];
/** Lists with one item per layer. */
const PER_LAYER = ['layer_types', 'no_rope_layers', 'layers_block_type', 'mlp_layer_types'];

/** What was done to a model, as its folder remembers it. */
export interface Architecture {
  readonly onnx_fuse: JsonObject;
  readonly num_hidden_layers: number;
  readonly block_configs: readonly JsonObject[];
}

/** The part of config.json that describes the layers: the root, or text_config of a multimodal model. */
function scopeOf(config: JsonText): { path: JsonPath; count: string } | null {
  for (const path of [[], ['text_config'], ['llm_config']]) {
    const count = COUNTS.find((key) => typeof config.get([...path, key]) === 'number');
    if (count) return { path, count };
  }
  return null;
}

/**
 * The architecture after a run. `config` is the config.json beside the original, where there is one: it gives the number
 * of layers and heads, and the entries of layers that nothing was done to. `earlier` is the onnx-fuse.json there, when the
 * original was itself made by us.
 */
export function describeArchitecture(report: Report, config: JsonText | null, earlier: JsonText | null): Architecture {
  const scope = config && scopeOf(config);
  const setting = (key: string): Json | undefined => (scope ? config.get([...scope.path, key]) : undefined);
  const before = [earlier, config].find((json) => isJsonObject(json?.get(['onnx_fuse']))) ?? null;
  const counts = [before?.get(['num_hidden_layers']), scope ? setting(scope.count) : 0];
  const known = [...report.original.map(({ layer }) => layer + 1), ...counts.map((count) => Number(count ?? 0))];
  const count = Math.max(0, ...known);
  const list = (key: string): Json[] => {
    const value = before?.get(['onnx_fuse', key]);
    return Array.isArray(value) ? [...value] : [];
  };
  const layersOf = (key: string): number[] => list(key).filter((item) => typeof item === 'number');
  const removedAttention = ascending([
    ...layersOf('removed_attention'),
    ...factsOf(report, removeAttention).map(({ layer }) => layer),
  ]);
  const removedFfn = ascending([...layersOf('removed_ffn'), ...factsOf(report, removeFfn).map(({ layer }) => layer)]);
  const linearized = (part: 'attention' | 'ffn'): number[] => {
    const made = factsOf(report, linearize).filter((fact) => fact.part === part);
    return ascending([...layersOf(`linearized_${part}`), ...made.map(({ layer }) => layer)]);
  };
  const linear = { attention: linearized('attention'), ffn: linearized('ffn') };
  const runs = parallelRuns(report);
  return {
    onnx_fuse: {
      version: report.versions['onnx-fuse'] ?? '',
      pipeline: report.pipeline,
      removed_attention: removedAttention,
      removed_ffn: removedFfn,
      linearized_attention: linear.attention,
      linearized_ffn: linear.ffn,
      parallel_ffn: [
        ...list('parallel_ffn'),
        ...runs.map(({ layers, widths }) => ({ layers: [...layers], widths: [...widths] })),
      ],
    },
    num_hidden_layers: count,
    block_configs: blockConfigs(report, count, setting, before?.get(['block_configs']), runs, linear),
  };
}

interface Run {
  readonly layers: readonly number[];
  readonly widths: readonly number[];
}

/** Runs in original layer numbers; a label like `3-5` is a layer that was fused before. */
function parallelRuns(report: Report): Run[] {
  const seen = new Set<string>();
  const runs: Run[] = [];
  const inBlocks = factsOf(report, parallelizeBlocks).flatMap(({ ffns }) => (ffns ? [ffns] : []));
  for (const { layers, widths } of [...inBlocks, ...factsOf(report, parallelizeFfn), ...factsOf(report, concatFfn)]) {
    if (layers.every((label) => seen.has(label))) continue;
    for (const label of layers) seen.add(label);
    runs.push({ layers: layers.map(layerOfLabel), widths });
  }
  return runs;
}

function blockConfigs(
  report: Report,
  count: number,
  setting: (key: string) => Json | undefined,
  earlier: Json | undefined,
  runs: readonly Run[],
  linearized: Readonly<Record<'attention' | 'ffn', readonly number[]>>,
): JsonObject[] {
  const given = earlier ?? setting('block_configs');
  const old = Array.isArray(given) && given.length === count ? given : [];
  const facts = new Map(report.original.map((fact) => [fact.layer, fact]));
  const gone = new Set(factsOf(report, removeAttention).map(({ layer }) => layer));
  const goneFfn = new Set(factsOf(report, removeFfn).map(({ layer }) => layer));
  const blocks: JsonObject[] = Array.from({ length: count }, (_, layer) => {
    const base = isJsonObject(old[layer]) ? (old[layer] as JsonObject) : {};
    if (Array.isArray(base['parallel_blocks'])) return base;
    const fact = facts.get(layer);
    const linear = fact?.linear ?? [];
    // One whose place is not known mixes no tokens, as an FFN does not.
    const isLinear = {
      attention: linear.includes('attention') || linearized.attention.includes(layer),
      ffn: linear.some((slot) => slot !== 'attention') || linearized.ffn.includes(layer),
    };
    // Where all that is there has its number, a layer that is not there does nothing.
    const isNone = !fact && report.numbering === 'names';
    const isHere = (part: 'attention' | 'ffn'): boolean => fact?.[part] === true && !linearized[part].includes(layer);
    const attention =
      gone.has(layer) || (!isLinear.attention && (isNone || fact?.attention === false))
        ? NO_OP
        : isLinear.attention
          ? LINEAR
          : (base['attention'] ?? attentionOf(setting));
    const ffn =
      goneFfn.has(layer) || (!isLinear.ffn && (isNone || fact?.ffn === false))
        ? NO_OP
        : isLinear.ffn && !isHere('ffn')
          ? LINEAR
          : (base['ffn'] ?? ffnOf(fact?.ffnWidth ?? null, setting));
    return { attention, ffn };
  });
  const done = new Set<number>();
  for (const { layers, form } of factsOf(report, parallelizeBlocks)) {
    const window = layers.map(layerOfLabel);
    const members = window.map((layer) => blocks[layer] as JsonObject);
    const [first, second] = window as [number, number];
    for (const layer of window) {
      blocks[layer] = IDENTITY;
      done.add(layer);
    }
    if (form === 'literal') blocks[first] = inParallel(members);
    else {
      // All attentions on the window's input, then all FFNs on the sum.
      const mixers = members.filter(({ attention }) => isLive(attention));
      const attentions = mixers.map(({ attention }) => ({ attention: attention ?? NO_OP, ffn: NO_OP }));
      blocks[first] = attentions.length > 1 ? inParallel(attentions) : (attentions[0] ?? IDENTITY);
      const ffns = members.filter(({ ffn }) => isLive(ffn)).map(({ ffn }) => ({ attention: NO_OP, ffn: ffn ?? NO_OP }));
      blocks[second] = ffns.length > 1 ? inParallel(ffns) : (ffns[0] ?? IDENTITY);
    }
  }
  for (const run of runs) {
    if (run.layers.every((layer) => done.has(layer))) continue;
    const [first, second] = run.layers as [number, number];
    const members = run.layers.flatMap((layer, i) => {
      const own = blocks[layer]?.['ffn'];
      const ffn = isLive(own) ? (own as JsonObject) : ffnOf(run.widths[i] ?? null, setting);
      // A linear inside the run reads its input, too; that of the first layer comes before it, as an attention does.
      const mixer = layer === first ? NO_OP : blocks[layer]?.['attention'];
      const linears = isLive(mixer) ? [{ attention: mixer as JsonObject, ffn: NO_OP }] : [];
      return [...linears, { attention: NO_OP, ffn }];
    });
    for (const layer of run.layers) {
      const mixer = layer === first ? blocks[layer]?.['attention'] : NO_OP;
      blocks[layer] = { attention: mixer ?? NO_OP, ffn: NO_OP };
    }
    // An attention that stays comes before all members: its own entry keeps it.
    blocks[isLive(blocks[first]?.['attention']) ? second : first] = inParallel(members);
  }
  return blocks;
}

function inParallel(members: readonly JsonObject[]): JsonObject {
  return { attention: null, ffn: null, parallel_blocks: members };
}

function isLive(part: Json | undefined): boolean {
  return isJsonObject(part) && part['no_op'] !== true;
}

const NO_OP: JsonObject = { no_op: true };
/** One of low rank, too: it is a linear all the same, and the format has no word for more. */
const LINEAR: JsonObject = { no_op: false, replace_with_linear: true };
const IDENTITY: JsonObject = { attention: NO_OP, ffn: NO_OP };

function attentionOf(setting: (key: string) => Json | undefined): JsonObject {
  const [heads, kv] = [
    setting('num_attention_heads'),
    setting('num_key_value_heads') ?? setting('num_attention_heads'),
  ];
  if (typeof heads !== 'number' || typeof kv !== 'number' || kv <= 0) return { no_op: false };
  // ModelOpt counts the KV heads, the Nemotron code the query heads of each.
  return { no_op: false, num_key_value_heads: kv, n_heads_in_group: heads / kv };
}

function ffnOf(width: number | null, setting: (key: string) => Json | undefined): JsonObject {
  const size = width ?? setting('intermediate_size');
  if (typeof size !== 'number') return { no_op: false };
  const mult = multiplierOf(size, setting('hidden_size'));
  return { no_op: false, intermediate_size: size, ...(mult === null ? {} : { ffn_mult: mult }) };
}

/** The ffn_mult for which int(2 * mult * hidden / 3), rounded up to a multiple of 256, is `width`; null without one. */
function multiplierOf(width: number, hidden: Json | undefined): number | null {
  if (typeof hidden !== 'number' || width % 256 !== 0) return null;
  const mult = Math.round((1.5e6 * width) / hidden) / 1e6;
  const rounded = (value: number): number => Math.ceil(Math.floor((2 * value * hidden) / 3) / 256) * 256;
  return (
    [mult, mult - 1e-6, mult + 1e-6]
      .map((value) => Number(value.toFixed(6)))
      .find((value) => rounded(value) === width) ?? null
  );
}

/**
 * Rewrites config.json. With numbers that have gaps it keeps describing the original's layers, now with block_configs.
 * With numbers from 0 it describes what the runtimes that read it (transformers.js) count: the layers with caches; the
 * architecture is then in onnx-fuse.json alone, because block_configs must have as many entries as there are layers.
 */
export function rewriteHfConfig(config: JsonText, architecture: Architecture, caches: CacheMap): void {
  const scope = scopeOf(config);
  if (!scope) return;
  const at = (key: string): JsonPath => [...scope.path, key];
  if (caches.naming === 'preserve') {
    config.set(at('block_configs'), architecture.block_configs);
    config.set(['onnx_fuse'], architecture.onnx_fuse);
    return;
  }
  if (caches.before.length === 0) return;
  const count = config.get(at(scope.count));
  for (const key of PER_LAYER) {
    const list = config.get(at(key));
    if (Array.isArray(list) && list.length === count)
      config.set(
        at(key),
        list.filter((_, layer) => caches.kept.has(layer)),
      );
  }
  config.remove(at('block_configs'));
  config.set(at(scope.count), caches.kept.size);
}

function ascending(layers: readonly number[]): number[] {
  return [...new Set(layers)].sort((a, b) => a - b);
}
