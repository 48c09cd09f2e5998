/**
 * Which layers lose their attention or their FFN, as people write it down: a list of numbers, or a file that another tool
 * made: LLM-Drop's drop lists, the block_configs of Nemotron and ModelOpt, the per_layer_config of Hugging Face, and what
 * onnx-fuse itself writes.
 */
import { errors, reasonOf } from '../../ir/index.js';
import { type LayerSelection, parseLayers } from '../../passes/index.js';
import { isJsonObject, type Json, type JsonObject, JsonText } from '../basics/json-text.js';
import { readText } from '../basics/small-file.js';

/** Layer numbers, ascending; null where the file does not say. */
export interface RemovedLayers {
  readonly attention: readonly number[] | null;
  readonly ffn: readonly number[] | null;
  /** True for a list of all blocks of a model, which a model may be like already. */
  readonly describesModel: boolean;
}

/** What a layer can lose. */
export type LayerPart = 'attention' | 'ffn';

const ACCEPTED =
  'accepted are drop_attn_list and drop_mlp_list (LLM-Drop), block_configs with no_op (Nemotron, ModelOpt), ' +
  'per_layer_config with skip (Hugging Face), and onnx-fuse.json';

/**
 * The layers that a person wrote at `place` (a flag, a key of a config file): a list of numbers, or a file that says which
 * lose this part. @throws Diagnostic OF_USAGE, OF_READ.
 */
export function readLayers(part: LayerPart, text: string, place: string): LayerSelection {
  if (/^[\d\s,-]*$|^\s*none\s*$/.test(text)) {
    return readList(place, 'write numbers like 4-9,12', () => parseLayers(text));
  }
  let content: string;
  try {
    content = readText(text, (place, why) => errors.usage(place, why, ACCEPTED));
  } catch (error) {
    if (!errors.noSuchFile.is(error)) throw error;
    throw errors.usage(
      place,
      `'${text}' is neither layer numbers nor a file`,
      'write numbers like 4-9,12, or check the path',
    );
  }
  const choice = parseLayerChoice(content, text);
  const layers = choice[part];
  if (layers === null) {
    const what = part === 'attention' ? 'attention' : 'FFNs';
    throw errors.usage(text, `it says nothing about ${what}, which ${place} asks it for`, ACCEPTED);
  }
  return choice.describesModel ? { ifThere: layers } : layers;
}

/** What `read` makes of a list at `place`; the line that it throws is about the user's list. @throws Diagnostic OF_USAGE. */
export function readList<T>(place: string, remedy: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw errors.usage(place, reasonOf(error), remedy);
  }
}

/** Reads a choice of layers out of a JSON text. Throws OF_USAGE naming `file`, the key found and what is accepted. */
export function parseLayerChoice(text: string, file: string): RemovedLayers {
  const { value } = new JsonText(text, file);
  if (!isJsonObject(value)) throw errors.usage(file, 'it holds no object', ACCEPTED);
  // Multimodal configs keep the language model's part in text_config.
  const inner = value['text_config'];
  for (const scope of isJsonObject(inner) ? [value, inner] : [value]) {
    const choice = choiceIn(scope, file);
    if (choice) return choice;
  }
  const keys = Object.keys(value);
  const found =
    keys.length > 0 ? `its keys are ${keys.slice(0, 6).join(', ')}${keys.length > 6 ? ', ...' : ''}` : 'it is empty';
  throw errors.usage(file, `it chooses no layers: ${found}`, ACCEPTED);
}

function choiceIn(scope: JsonObject, file: string): RemovedLayers | null {
  const own = scope['onnx_fuse'];
  if (isJsonObject(own)) {
    const list = (key: string): number[] => numbers(own[key], file, `onnx_fuse.${key}`);
    return { attention: list('removed_attention'), ffn: list('removed_ffn'), describesModel: true };
  }
  const [attention, ffn] = [scope['drop_attn_list'], scope['drop_mlp_list']];
  if (attention !== undefined || ffn !== undefined) {
    return {
      attention: attention === undefined ? null : numbers(attention, file, 'drop_attn_list'),
      ffn: ffn === undefined ? null : numbers(ffn, file, 'drop_mlp_list'),
      describesModel: false,
    };
  }
  if (scope['block_configs'] != null) return fromBlocks(scope['block_configs'], file);
  if (scope['per_layer_config'] != null) return fromLayers(scope['per_layer_config'], file);
  return null;
}

/** A list of layer numbers, or one flag per layer. */
function numbers(value: Json | undefined, file: string, key: string): number[] {
  const wrong = (found: string) =>
    errors.usage(file, `${key}: expected layer numbers, or true and false for each layer, found ${found}`, ACCEPTED);
  if (!Array.isArray(value)) throw wrong(shown(value));
  if (value.length > 0 && value.every((item) => typeof item === 'boolean')) {
    return value.flatMap((isDropped, layer) => (isDropped ? [layer] : []));
  }
  for (const item of value) {
    if (typeof item !== 'number' || !Number.isSafeInteger(item) || item < 0) throw wrong(shown(item));
  }
  return ascending(value as number[]);
}

function fromBlocks(value: Json, file: string): RemovedLayers {
  if (!Array.isArray(value))
    throw errors.usage(file, `block_configs: expected a list, found ${shown(value)}`, ACCEPTED);
  const removed = { attention: [] as number[], ffn: [] as number[] };
  for (const [layer, block] of value.entries()) {
    const place = `block_configs[${layer}]`;
    if (!isJsonObject(block)) throw errors.usage(file, `${place}: expected an object, found ${shown(block)}`, ACCEPTED);
    if (Array.isArray(block['parallel_blocks'])) {
      const why = `${place} has parallel_blocks: its entries are those of a merged model, not the layers of this one`;
      throw errors.usage(file, why, 'give the config from before the merge, or onnx-fuse.json');
    }
    for (const [part, sub] of [
      ['attention', block['attention']],
      ['ffn', block['ffn'] ?? block['mlp']],
    ] as const) {
      if (!isJsonObject(sub)) {
        throw errors.usage(file, `${place}: expected an object under '${part}', found ${shown(sub)}`, ACCEPTED);
      }
      if (sub['replace_with_linear'] === true) {
        const why = `${place}.${part}.replace_with_linear: a linear layer in its place has to be fitted to the model`;
        throw errors.usage(file, why, 'let onnx-fuse plan fit it, or use no_op');
      }
      if (sub['no_op'] === true) removed[part].push(layer);
    }
  }
  return { ...removed, describesModel: true };
}

/** Names of what can be skipped, as the architectures of transformers call them. */
const SKIPS: Readonly<Record<string, LayerPart>> = { attention: 'attention', mlp: 'ffn', moe: 'ffn', ffn: 'ffn' };

function fromLayers(value: Json, file: string): RemovedLayers {
  const entries = Array.isArray(value) ? value.map((entry, layer) => [String(layer), entry] as const) : null;
  if (!entries && !isJsonObject(value)) {
    throw errors.usage(file, `per_layer_config: expected an object, found ${shown(value)}`, ACCEPTED);
  }
  const removed = { attention: [] as number[], ffn: [] as number[] };
  for (const [key, entry] of entries ?? Object.entries(value as JsonObject)) {
    const place = `per_layer_config.${key}`;
    if (!/^\d+$/.test(key)) throw errors.usage(file, `${place}: expected a layer number`, ACCEPTED);
    if (!isJsonObject(entry)) throw errors.usage(file, `${place}: expected an object, found ${shown(entry)}`, ACCEPTED);
    const skip = entry['skip'] ?? [];
    if (!Array.isArray(skip))
      throw errors.usage(file, `${place}.skip: expected a list, found ${shown(skip)}`, ACCEPTED);
    for (const name of skip) {
      const part = typeof name === 'string' && Object.hasOwn(SKIPS, name) ? SKIPS[name] : undefined;
      if (!part) {
        throw errors.usage(
          file,
          `${place}.skip: ${shown(name)} cannot be removed`,
          'only attention, mlp and moe can be',
        );
      }
      removed[part].push(Number(key));
    }
  }
  return { attention: ascending(removed.attention), ffn: ascending(removed.ffn), describesModel: true };
}

function ascending(layers: readonly number[]): number[] {
  return [...new Set(layers)].sort((a, b) => a - b);
}

function shown(value: Json | undefined): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  return isJsonObject(value) ? 'an object' : JSON.stringify(value);
}
