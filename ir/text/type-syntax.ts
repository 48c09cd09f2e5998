/**
 * Types in text: `float[N,128]`, `float` (a scalar), `float[]` (no rank known), `seq(T)`, `map(K, V)`, `optional(T)`,
 * `sparse_tensor(T)`, `opaque(domain, name)`.
 *
 * Everything but plain tensors is TypeProto wire in the IR; it prints in official syntax when that says all of it.
 */
import { decodeMessage, encodeMessage, type TypeMessage, toLong, toNumber } from '../proto/messages.js';
import { equalBytes } from '../proto/wire.js';
import { type DataType, type Dim, dataTypeCode, dataTypeOf, type ValueType } from '../type.js';
import { isIdentifier, isOfficialDataType, type Lexer, quote } from './lex.js';

const MAX_DEPTH = 32;

/** TypeProto as far as the syntax reaches. */
type Tree =
  | { readonly kind: 'tensor' | 'sparse'; readonly dtype: DataType; readonly shape: readonly Dim[] | null }
  | { readonly kind: 'seq' | 'optional'; readonly element: Tree }
  | { readonly kind: 'map'; readonly key: DataType; readonly value: Tree }
  | { readonly kind: 'opaque'; readonly domain: string; readonly name: string };

/** The fields of TypeProto that ir/proto has no use for. Integers may be numbers or Longs. */
interface FullType extends Omit<TypeMessage, 'tensorType'> {
  tensorType?: TensorMessage;
  sparseTensorType?: TensorMessage;
  sequenceType?: { elemType?: FullType };
  optionalType?: { elemType?: FullType };
  mapType?: { keyType?: number; valueType?: FullType };
  opaqueType?: { domain?: string; name?: string };
}
type TensorMessage = NonNullable<TypeMessage['tensorType']>;

/** The type in official syntax; null when the syntax cannot say it (then it takes a directive). */
export function typeText(type: ValueType): string | null {
  if (type.kind === 'tensor') return treeText({ kind: 'tensor', dtype: type.dtype, shape: type.shape });
  const tree = treeOf(type.wire);
  return tree && treeText(tree);
}

/** The type as TypeProto wire, for the directive that holds what `typeText` cannot. */
export function typeWire(type: ValueType): Uint8Array {
  if (type.kind === 'other') return type.wire;
  return wireOf({ kind: 'tensor', dtype: type.dtype, shape: type.shape });
}

/** The type of TypeProto wire; what is more than a plain tensor type stays wire. */
export function typeFromWire(wire: Uint8Array): ValueType {
  const tree = treeOf(wire);
  return tree?.kind === 'tensor' ? { kind: 'tensor', dtype: tree.dtype, shape: tree.shape } : { kind: 'other', wire };
}

/** Reads a type. Throws OF_TEXT. */
export function parseType(lexer: Lexer): ValueType {
  const tree = parseTree(lexer, 0);
  if (tree.kind === 'tensor') return { kind: 'tensor', dtype: tree.dtype, shape: tree.shape };
  return { kind: 'other', wire: wireOf(tree) };
}

function treeText(tree: Tree): string | null {
  switch (tree.kind) {
    case 'tensor':
      return isOfficialDataType(tree.dtype) ? tensorText(tree.dtype, tree.shape) : null;
    case 'sparse':
      return isOfficialDataType(tree.dtype) ? `sparse_tensor(${tensorText(tree.dtype, tree.shape)})` : null;
    case 'map': {
      const value = treeText(tree.value);
      return value && isOfficialDataType(tree.key) ? `map(${tree.key}, ${value})` : null;
    }
    case 'opaque': {
      const words = [...(tree.domain === '' ? [] : [tree.domain]), ...(tree.name === '' ? [] : [tree.name])];
      const isPlain =
        words.every((word) => word.split('.').every(isIdentifier)) && (tree.domain === '' || isIdentifier(tree.name));
      return isPlain ? `opaque(${words.join(', ')})` : null;
    }
    default: {
      const element = treeText(tree.element);
      return element && `${tree.kind}(${element})`;
    }
  }
}

/** `float[2,N]`. */
export function tensorText(dtype: DataType, shape: readonly Dim[] | null): string {
  if (!shape) return `${dtype}[]`;
  return shape.length === 0 ? dtype : `${dtype}[${shape.map(dimText).join(',')}]`;
}

function dimText(dim: Dim): string {
  if (dim === null) return '?';
  if (typeof dim === 'number') return String(dim);
  return isIdentifier(dim) ? dim : quote(dim);
}

function parseTree(lexer: Lexer, depth: number): Tree {
  if (depth > MAX_DEPTH) throw lexer.error(`types nested at most ${MAX_DEPTH} deep`);
  const at = lexer.at;
  const word = lexer.identifier('a type');
  switch (word) {
    case 'seq':
    case 'optional': {
      lexer.expect('(');
      const element = parseTree(lexer, depth + 1);
      lexer.expect(')');
      return { kind: word, element };
    }
    case 'map': {
      lexer.expect('(');
      const key = dataType(lexer, lexer.at, lexer.identifier('the type of the keys'));
      lexer.expect(',');
      const value = parseTree(lexer, depth + 1);
      lexer.expect(')');
      return { kind: 'map', key, value };
    }
    case 'sparse_tensor': {
      lexer.expect('(');
      const dtype = dataType(lexer, lexer.at, lexer.identifier('a tensor type'));
      const shape = parseShape(lexer);
      lexer.expect(')');
      return { kind: 'sparse', dtype, shape };
    }
    case 'opaque':
      return parseOpaque(lexer);
    default:
      return { kind: 'tensor', dtype: dataType(lexer, at, word), shape: parseShape(lexer) };
  }
}

function dataType(lexer: Lexer, at: number, word: string): DataType {
  const code = dataTypeCode(word);
  if (code < 0 || code >= 2 ** 31) throw lexer.error('a type', at);
  return dataTypeOf(code);
}

function parseShape(lexer: Lexer): Dim[] | null {
  if (!lexer.matches('[')) return [];
  if (lexer.matches(']')) return null;
  const dims: Dim[] = [];
  do {
    if (lexer.matches('?')) dims.push(null);
    else if (lexer.next('"')) dims.push(lexer.string());
    else if (lexer.peekIdentifier() !== '') dims.push(lexer.identifier());
    else dims.push(lexer.safeInteger('a dimension'));
  } while (lexer.matches(','));
  lexer.expect(']');
  return dims;
}

function parseOpaque(lexer: Lexer): Tree {
  lexer.expect('(');
  if (lexer.matches(')')) return { kind: 'opaque', domain: '', name: '' };
  const parts = [lexer.identifier()];
  while (lexer.matches('.')) parts.push(lexer.identifier());
  const first = parts.join('.');
  const name = lexer.matches(',') ? lexer.identifier() : null;
  lexer.expect(')');
  return name === null ? { kind: 'opaque', domain: '', name: first } : { kind: 'opaque', domain: first, name };
}

function treeOf(wire: Uint8Array): Tree | null {
  try {
    const tree = treeOfMessage(decodeMessage('TypeProto', wire) as FullType, 0);
    // Whatever the tree leaves out (denotations, unknown fields, field order) shows here.
    return tree && equalBytes(wireOf(tree), wire) ? tree : null;
  } catch {
    return null;
  }
}

function treeOfMessage(message: FullType | undefined, depth: number): Tree | null {
  if (!message || depth > MAX_DEPTH) return null;
  if (message.tensorType) return { kind: 'tensor', ...tensorOf(message.tensorType) };
  if (message.sparseTensorType) return { kind: 'sparse', ...tensorOf(message.sparseTensorType) };
  if (message.opaqueType) {
    return { kind: 'opaque', domain: message.opaqueType.domain ?? '', name: message.opaqueType.name ?? '' };
  }
  if (message.mapType) {
    const value = treeOfMessage(message.mapType.valueType, depth + 1);
    return value && { kind: 'map', key: dataTypeOf(message.mapType.keyType ?? 0), value };
  }
  const kind = message.sequenceType ? 'seq' : 'optional';
  const element = treeOfMessage((message.sequenceType ?? message.optionalType)?.elemType, depth + 1);
  return element && { kind, element };
}

function tensorOf(message: TensorMessage): { dtype: DataType; shape: Dim[] | null } {
  const dims = message.shape && (message.shape.dim ?? []);
  const shape = dims?.map((dim): Dim => {
    if (Object.hasOwn(dim, 'dimParam')) return dim.dimParam ?? '';
    return dim.dimValue === undefined || !Object.hasOwn(dim, 'dimValue') ? null : toNumber(dim.dimValue);
  });
  return { dtype: dataTypeOf(message.elemType ?? 0), shape: shape ?? null };
}

function wireOf(tree: Tree): Uint8Array {
  return encodeMessage('TypeProto', messageOf(tree) as TypeMessage);
}

function messageOf(tree: Tree): FullType {
  switch (tree.kind) {
    case 'tensor':
      return { tensorType: tensorMessage(tree.dtype, tree.shape) };
    case 'sparse':
      return { sparseTensorType: tensorMessage(tree.dtype, tree.shape) };
    case 'seq':
      return { sequenceType: { elemType: messageOf(tree.element) } };
    case 'optional':
      return { optionalType: { elemType: messageOf(tree.element) } };
    case 'map':
      return { mapType: { keyType: dataTypeCode(tree.key), valueType: messageOf(tree.value) } };
    case 'opaque':
      return {
        opaqueType: {
          ...(tree.domain === '' ? {} : { domain: tree.domain }),
          ...(tree.name === '' ? {} : { name: tree.name }),
        },
      };
  }
}

function tensorMessage(dtype: DataType, shape: readonly Dim[] | null): TensorMessage {
  const dim = (shape ?? []).map((size) => {
    if (size === null) return {};
    return typeof size === 'string' ? { dimParam: size } : { dimValue: toLong(size) };
  });
  return { elemType: dataTypeCode(dtype), ...(shape ? { shape: { dim } } : {}) };
}
