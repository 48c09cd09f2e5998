/**
 * genai_config.json: which file holds the layers, which numbers of caches onnxruntime-genai can find, and the same config
 * for a model that lost some. genai throws on keys it does not know, so none is ever added.
 */

import { errors } from '../../ir/index.js';
import { counted } from '../../ir/visible.js';
import { isJsonObject, type Json, type JsonObject, type JsonPath, type JsonText } from '../basics/json-text.js';
import type { CacheMap, KvNaming } from './cache-map.js';

const DECODER: JsonPath = ['model', 'decoder'];
/** genai composes names in a buffer of 64 characters. */
const LONGEST_NAME = 63;

/** Where names come from when the config does not say. */
const TEMPLATES = {
  inputs: { past_key_names: 'past_key_values.%d.key', past_value_names: 'past_key_values.%d.value' },
  outputs: { present_key_names: 'present.%d.key', present_value_names: 'present.%d.value' },
} as const;

interface Stage {
  readonly path: JsonPath;
  readonly filename: string;
  readonly inputs: readonly string[];
}

/**
 * The model file that holds the layers: the decoder, or the one stage of a pipeline that has caches.
 * @throws Diagnostic OF_USAGE when there is none, or more than one.
 */
export function genaiModelFile(config: JsonText): string {
  checkShared(config);
  const stages = stagesOf(config);
  if (stages.length === 0) {
    const name = config.get([...DECODER, 'filename']);
    if (typeof name === 'string' && name !== '') return name;
    throw errors.usage(
      config.file,
      'it names no model: model.decoder.filename is missing',
      'give the .onnx file itself',
    );
  }
  const templates = templatesOf(config);
  const isCache = (name: string): boolean => templates.some(({ text }) => numberIn(name, text) !== null);
  const files = new Set(stages.filter(({ inputs }) => inputs.some(isCache)).map(({ filename }) => filename));
  const [file, second] = [...files];
  if (file === undefined)
    throw errors.usage(config.file, 'no stage of its pipeline has caches', 'give the .onnx file itself');
  if (second !== undefined) {
    const why = `its pipeline spreads the layers over ${files.size} models (${[...files].join(', ')})`;
    throw errors.usage(config.file, why, 'fuse the .onnx files one by one');
  }
  return file;
}

/** Why genai needs caches numbered from 0; null when it finds out the numbers itself (measured: 0.13.0 and later do, 0.12.2 does not). */
export function whyCompact(config: JsonText): string | null {
  const decoder = config.get(DECODER);
  if (!isJsonObject(decoder)) return null;
  const [inputs, sliding] = [decoder['inputs'], decoder['sliding_window']];
  if (isJsonObject(inputs) && inputs['past_names']) return 'genai counts combined caches from 0';
  if (isJsonObject(inputs) && inputs['block_table']) return 'genai counts paged caches from 0';
  if (decoder['pipeline'] !== undefined) return 'genai counts the caches of a pipeline from 0';
  if (decoder['layer_types'] !== undefined) return 'genai counts the layers of a hybrid model from 0';
  if (isJsonObject(sliding) && sliding['slide_key_value_cache'] !== false) return 'genai counts sliding caches from 0';
  if (/nvtensorrtrtx/i.test(JSON.stringify(decoder['session_options'] ?? null))) {
    return 'the TensorRT-RTX provider counts caches from 0';
  }
  return null;
}

/** The naming for a folder: what was asked for, if genai can run that; else what it needs. */
export function namingFor(config: JsonText, asked: KvNaming | undefined): KvNaming {
  if (asked === 'compact') return asked;
  return whyCompact(config) === null ? 'preserve' : (asked ?? 'compact');
}

/**
 * Rewrites the config for a model whose caches went where `caches` says. Returns what a person should know.
 * @throws Diagnostic OF_USAGE when genai could not run the result.
 */
export function rewriteGenaiConfig(config: JsonText, caches: CacheMap): string[] {
  const notes: string[] = [];
  if (caches.before.length === 0 || caches.gone.size + caches.names.size === 0) return notes;
  const isWhole = caches.before.every((number) => caches.kept.get(number) === number);
  const why = whyCompact(config);
  if (why && caches.kept.size === 0) {
    const text = `every cache is gone, and ${why}: it cannot run without any`;
    throw errors.usage(config.file, text, 'keep the attention of one layer');
  }
  if (why && !isWhole && caches.naming === 'preserve') {
    throw errors.usage(
      'option kv-naming',
      `'preserve' leaves gaps between the layers that are left, and ${why}`,
      'number them anew (option kv-naming compact)',
    );
  }
  rewritePipeline(config, caches);
  rewriteSliding(config, caches, notes);
  if (caches.naming === 'compact') {
    const layers = config.get([...DECODER, 'num_hidden_layers']);
    const types = config.get([...DECODER, 'layer_types']);
    if (Array.isArray(types) && types.length === layers) {
      config.set(
        [...DECODER, 'layer_types'],
        types.filter((_, layer) => caches.kept.has(layer)),
      );
    }
    if (layers !== undefined) config.set([...DECODER, 'num_hidden_layers'], caches.kept.size);
  }
  if (caches.kept.size === 0) {
    notes.push('no KV cache is left: onnxruntime-genai runs such a model from 0.13 on, other runtimes may refuse it');
  } else if (!isWhole && caches.naming === 'preserve') {
    notes.push('the numbers of the KV caches have gaps: onnxruntime-genai finds them from 0.13 on');
  }
  checkNames(config, caches);
  return notes;
}

/** What the config says under keys that name files: `filename`, `config_filename`, `adapter_filename`... */
export function fileNames(value: Json): string[] {
  if (Array.isArray(value)) return value.flatMap(fileNames);
  if (!isJsonObject(value)) return [];
  return Object.entries(value).flatMap(([key, item]) =>
    typeof item === 'string' && key.endsWith('filename') && item !== '' ? [item] : fileNames(item),
  );
}

/** Every string of the config that names a file beside it: models, adapters, processors. */
export function filesNamed(value: Json): string[] {
  if (typeof value === 'string') return /^[^<>:"|?*\n]+\.\w+$/.test(value) ? [value] : [];
  if (Array.isArray(value)) return value.flatMap(filesNamed);
  return isJsonObject(value) ? Object.values(value).flatMap(filesNamed) : [];
}

/** Stages of the decoder's pipeline, which is a list of objects or one object. */
function stagesOf(config: JsonText): Stage[] {
  const path = [...DECODER, 'pipeline'];
  const pipeline = config.get(path);
  const groups: (readonly [JsonPath, Json])[] = Array.isArray(pipeline)
    ? pipeline.map((group, i) => [[...path, i], group] as const)
    : [[path, pipeline ?? null]];
  return groups.flatMap(([at, group]) =>
    Object.entries(isJsonObject(group) ? group : {}).flatMap(([name, stage]) => {
      if (!isJsonObject(stage) || typeof stage['filename'] !== 'string') return [];
      return [{ path: [...at, name], filename: stage['filename'], inputs: strings(stage['inputs']) }];
    }),
  );
}

function strings(value: Json | undefined): string[] {
  return Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : [];
}

/** Name templates of the decoder, the defaults among them. */
function templatesOf(config: JsonText): { side: 'inputs' | 'outputs'; key: string; text: string }[] {
  return (['inputs', 'outputs'] as const).flatMap((side) => {
    const own = config.get([...DECODER, side]);
    const all = { ...TEMPLATES[side], ...((isJsonObject(own) ? own : {}) as JsonObject) };
    return Object.entries(all).flatMap(([key, text]) =>
      typeof text === 'string' && text.includes('%d') && !key.startsWith('cross') ? [{ side, key, text }] : [],
    );
  });
}

function numberIn(name: string, template: string): number | null {
  const [prefix = '', suffix = ''] = template.split('%d');
  if (!name.startsWith(prefix) || !name.endsWith(suffix)) return null;
  const middle = name.slice(prefix.length, name.length - suffix.length);
  return /^\d+$/.test(middle) ? Number(middle) : null;
}

function rewritePipeline(config: JsonText, caches: CacheMap): void {
  const file = stagesOf(config).length > 0 ? genaiModelFile(config) : null;
  for (const { path, filename } of stagesOf(config)) {
    if (filename !== file) continue;
    for (const side of ['inputs', 'outputs']) {
      const names = config.get([...path, side]);
      if (!Array.isArray(names)) continue;
      const left = names.filter((name) => !(typeof name === 'string' && caches.gone.has(name)));
      config.set(
        [...path, side],
        left.map((name) => (typeof name === 'string' ? (caches.names.get(name) ?? name) : name)),
      );
    }
    const forwarder = config.get([...path, 'output_names_forwarder']);
    if (!isJsonObject(forwarder)) continue;
    const left = Object.entries(forwarder).filter(([name]) => !caches.gone.has(name));
    config.set(
      [...path, 'output_names_forwarder'],
      Object.fromEntries(left.map(([name, to]) => [caches.names.get(name) ?? name, to])),
    );
  }
}

function rewriteSliding(config: JsonText, caches: CacheMap, notes: string[]): void {
  const path = [...DECODER, 'sliding_window', 'layers'];
  const layers = config.get(path);
  if (!Array.isArray(layers) || layers.length === 0) return;
  const left = layers.flatMap((layer) => (typeof layer === 'number' ? (caches.kept.get(layer) ?? []) : [layer]));
  if (left.length > 0) {
    config.set(path, left);
    return;
  }
  // An empty list means that all layers slide; none does any more.
  config.remove([...DECODER, 'sliding_window']);
  notes.push('no layer with a sliding window is left: sliding_window was taken out of genai_config.json');
}

/** Weights shared by their place in a data file are not where they were. */
function checkShared(config: JsonText): void {
  for (const section of ['decoder', 'mtp']) {
    const shared = config.get(['model', section, 'shared_initializers']);
    if (!Array.isArray(shared) || shared.length === 0) continue;
    const why = `model.${section}.shared_initializers gives places in data files, which move`;
    throw errors.usage(config.file, why, 'give the .onnx file itself');
  }
}

/** The templates, for the numbers genai will try, give names that the model has. */
function checkNames(config: JsonText, caches: CacheMap): void {
  const pipelined = stagesOf(config).length > 0;
  for (const { side, key, text } of templatesOf(config)) {
    const known = [...caches.names].filter(([name]) => numberIn(name, text) !== null);
    for (const [, name] of known) {
      const number = numberIn(name, text);
      const place = `${config.file}, model.decoder.${side}.${key}`;
      if (number === null || !caches.present.has(name)) {
        throw errors.usage(
          place,
          `'${text}' does not give '${name}', a cache of the model`,
          'give the .onnx file itself',
        );
      }
      if (Buffer.byteLength(name) > LONGEST_NAME) {
        throw errors.usage(
          place,
          `'${name}' is longer than the ${LONGEST_NAME} characters genai allows`,
          'export with shorter names',
        );
      }
      if (!pipelined && caches.naming === 'compact' && number >= caches.kept.size) {
        throw errors.usage(
          place,
          `'${name}' is beyond the ${counted(caches.kept.size, 'layer that is', { many: 'layers that are' })} left`,
          'keep their numbers (option kv-naming preserve)',
        );
      }
    }
  }
}
