/** The role of each graph input that is not a cache: from its uses, its type and shape, and then its name. */
import type { Node, Value } from '../../ir/core.js';
import type { DataType } from '../../ir/type.js';
import { attentionOperator } from '../../passes/analysis/attention-operators.js';
import { type Flow, isCarrier, isStandard, numberAt, type Reach, shapeOf } from './flow.js';
import type { InputRole } from './roles.js';

/** What the uses of an input tell. */
export interface InputUses {
  /** Rows of the largest table this input looks rows up in. */
  readonly table: number | null;
  /** Rows of the position table that an attention or rotary operator reads with it. */
  readonly rotary: number | null;
  /** The role that an operator's operand slot fixes. */
  readonly slot: InputRole | null;
  /** Multiplied (the start of a decomposed rotary embedding). */
  readonly multiplied: boolean;
}

/** Operand slots of operators that do not attend: operator -> operand index -> role. */
const SLOTS: ReadonlyMap<string, Readonly<Record<number, InputRole>>> = new Map(
  Object.entries<Readonly<Record<number, InputRole>>>({
    'com.microsoft.RotaryEmbedding': { 1: 'positions' },
    'com.microsoft.EmbedLayerNormalization': { 0: 'tokens', 1: 'segments', 7: 'mask', 8: 'positions' },
    RotaryEmbedding: { 3: 'positions' },
    TensorScatter: { 2: 'past-length' },
  }),
);

/** Operand with the table of cosines, a row per position. */
const COSINES: ReadonlyMap<string, number> = new Map([
  ['com.microsoft.RotaryEmbedding', 2],
  ['RotaryEmbedding', 1],
]);

/** Rows of the table of an attention that rotates and counts positions by itself; null for any other operator. */
export function ownPositions(node: Node): number | null {
  const { cosines, roles = {} } = attentionOperator(node) ?? {};
  const given = Object.keys(roles).find((index) => roles[Number(index)] === 'positions');
  if (cosines === undefined || (given !== undefined && node.input(Number(given)))) return null;
  return numberAt(shapeOf(node.input(cosines)), 0);
}

/** The role that an operand of a node fixes. */
function slotOf(node: Node, index: number): InputRole | null {
  return attentionOperator(node)?.roles?.[index] ?? SLOTS.get(node.op)?.[index] ?? null;
}

const NAMES: readonly (readonly [RegExp, InputRole])[] = [
  [/use_cache/, 'use-cache'],
  [/num_logits|logits_to_keep/, 'new-length'],
  [/seqlens?_k|last_index/, 'last-index'],
  [/total_(seq|len)|nonpad/, 'total-length'],
  [/(past|cached?)_?(kv_)?(seq|len)|write_ind|past_seq/, 'past-length'],
  [/position/, 'positions'],
  [/token_type|segment/, 'segments'],
  [/mask/, 'mask'],
  [/(seq|input|query)\w*_len(gth)?s?$/, 'new-length'],
  [/input_?ids|tokens?$|token_ids|^ids$|^input$|^input[._]?\d+$/, 'tokens'],
];

/** Collects what the uses of an input tell. */
export function evidenceOf(flow: Flow, value: Value): InputUses {
  let table: number | null = null;
  let slot: InputRole | null = null;
  let multiplied = false;
  let rotary: number | null = null;
  const through = (reach: Reach) => (isCarrier(reach.node, reach.index) ? reach.node.outputs : []);
  for (const reach of flow.reach(value, through)) {
    if (!('node' in reach)) continue;
    const { node, index } = reach;
    slot ??= slotOf(node, index);
    const cosines = attentionOperator(node)?.cosines ?? COSINES.get(node.op);
    if (cosines !== undefined && slotOf(node, index) === 'positions') {
      rotary ??= numberAt(shapeOf(node.input(cosines)), 0);
    }
    const looksUp = index === 1 && (node.opType === 'Gather' || node.opType === 'GatherBlockQuantized');
    const rows = looksUp ? tableRows(node.input(0)) : embedRows(reach);
    if (rows !== null) table = Math.max(table ?? 0, rows);
    if (isStandard(node) && (node.opType === 'MatMul' || node.opType === 'Mul')) multiplied = true;
  }
  return { table, rotary, slot, multiplied };
}

/** Rows of a constant table of vectors (rank 2), seen through what only retypes it; null when it is none. */
function tableRows(value: Value | null): number | null {
  let source = value;
  let axis = 0;
  for (let depth = 0; depth < 6; depth++) {
    const shape = shapeOf(source);
    if (shape) return shape.length === 2 && isParameter(source) ? numberAt(shape, axis) : null;
    const node = source?.producer;
    if (!node || !['Cast', 'Identity', 'DequantizeLinear', 'Transpose', 'Mul'].includes(node.opType)) return null;
    if (node.opType === 'Transpose') axis = 1 - axis;
    source = node.input(0);
  }
  return null;
}

/** True when the value is made of weights only (a model without its weights has them as inputs of fixed shape). */
function isParameter(value: Value | null, depth = 6): boolean {
  if (!value) return false;
  if (value.initializer || value.isSparse) return true;
  if (value.isInput) return shapeOf(value)?.every((dim) => typeof dim === 'number') ?? false;
  const node = value.producer;
  if (!node || depth === 0) return false;
  return (
    node.opType === 'Constant' ||
    (node.inputs.length > 0 && node.inputs.every((input) => !input || isParameter(input, depth - 1)))
  );
}

function embedRows(reach: Reach): number | null {
  if (reach.node.opType !== 'EmbedLayerNormalization' || reach.index !== 0) return null;
  return numberAt(shapeOf(reach.node.input(2)), 0);
}

/** Decides for all inputs together: there is one tokens input, and it looks up the largest table. */
export function roleOf(evidence: ReadonlyMap<Value, InputUses>): Map<Value, InputRole> {
  const roles = new Map<Value, InputRole>();
  for (const [value, found] of evidence) roles.set(value, first(value, found));
  const isOf = (role: InputRole) => [...roles].filter(([, r]) => r === role).map(([value]) => value);
  const rows = (value: Value) => evidence.get(value)?.table ?? 0;

  // Lookups without a telling name: the largest table is the vocabulary, the next ones positions or token types.
  const lookups = isOf('index').filter((value) => rows(value) > 0);
  lookups.sort((a, b) => rows(b) - rows(a));
  if (isOf('tokens').length === 0 && lookups[0]) roles.set(lookups.shift() as Value, 'tokens');
  for (const value of lookups) roles.set(value, rows(value) <= 4 ? 'segments' : 'positions');
  // Several look like tokens: those that look nothing up, or in smaller tables, are indices of something else.
  const tokens = isOf('tokens').sort((a, b) => rows(b) - rows(a));
  for (const value of tokens.slice(1)) roles.set(value, 'index');

  const driver = tokens[0];
  const drives = (value: Value) => shapeOf(value)?.length === 3 && typeof shapeOf(value)?.[2] === 'number';
  if (!driver) {
    const [vectors] = isOf('float').filter((value) => drives(value) && typeof shapeOf(value)?.[1] !== 'number');
    if (vectors) roles.set(vectors, 'embeddings');
  }
  // More vectors per token (hidden states of another model) follow the same sequence.
  const main = driver ?? isOf('embeddings')[0];
  const sequence = main && shapeOf(main)?.[driver ? (shapeOf(main)?.length ?? 1) - 1 : 1];
  for (const value of isOf('float')) {
    const shape = shapeOf(value);
    if (drives(value) && typeof sequence === 'string' && shape?.[1] === sequence) roles.set(value, 'embeddings');
  }
  return roles;
}

function first(value: Value, evidence: InputUses): InputRole {
  // What the pass `instrument` adds: gates, which are 1 unless somebody says otherwise.
  if (value.name.startsWith('onnx_fuse.')) return 'gate';
  const dtype = value.dtype ?? 'undefined';
  const rank = shapeOf(value)?.length ?? null;
  const named = NAMES.find(([pattern]) => pattern.test(value.name.toLowerCase()))?.[1] ?? null;
  const role = settle(evidence.slot ?? named, rank, evidence);
  if (isInteger(dtype) || dtype === 'bool') {
    if (role && (role !== 'tokens' || isInteger(dtype))) return role;
    if (rank === 4 || rank === 3) return 'bias';
    if (rank === 2 && evidence.table === null) return evidence.multiplied ? 'positions' : 'mask';
    return 'index';
  }
  if (dtype === 'float' || dtype === 'float16' || dtype === 'double') {
    if (role === 'bias' || role === 'mask' || role === 'positions') return role;
    return 'float';
  }
  return 'unknown';
}

/** A mask of rank 3 or 4 is one per query; a lookup in a table is no length. */
function settle(role: InputRole | null, rank: number | null, evidence: InputUses): InputRole | null {
  if (role === 'mask' && rank !== null && rank > 2) return 'bias';
  if (role === 'bias' && rank !== null && rank < 3) return 'mask';
  // com.microsoft.Attention takes the number of valid positions of each row in place of a mask.
  if (role === 'mask' && rank === 1) return 'total-length';
  if (role === 'positions' && evidence.slot === null && rank === 0) return 'past-length';
  return role;
}

function isInteger(dtype: DataType): boolean {
  return /^u?int(8|16|32|64)$/.test(dtype);
}
