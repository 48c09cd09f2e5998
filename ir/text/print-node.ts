/** Tensors, attributes and nodes in text. */
import type { Attribute, Graph, Node, Tensor } from '../core.js';
import {
  ATTRIBUTE_TYPES,
  attributeTypeCode,
  canonicalAttribute,
  canonicalNode,
  canonicalTensor,
} from '../proto/canonical.js';
import { attributeResidue, attributeTypes } from '../proto/residue/attribute.js';
import { residueOf } from '../proto/residue/residue.js';
import { externalExtras, tensorResidue } from '../proto/residue/tensor.js';
import { bitsOf } from '../type.js';
import { inlineWeight, type Weight } from '../weight.js';
import type { Digest } from '../weight-types.js';
import { ELIDE_ABOVE, weightEntries } from './expression.js';
import { isIdentifier, quote, quoteName } from './lex.js';
import { floatAttributeText, literalText } from './literal.js';
import { bareWord, base64, type NoteContext, noteTexts, word } from './notes.js';
import { tensorText, typeText } from './type-syntax.js';

/** What printing needs everywhere. */
export interface PrintContext extends NoteContext {
  /** Leave out inline weights above 1 KiB. The text can no longer be parsed. */
  readonly elide: boolean;
  /** One line for each directive. */
  noteLines(notes: readonly string[], indent: string): string;
  /** A graph in an attribute: the directives in front of it, and its text with inner lines indented by `indent`. */
  graph(graph: Graph, indent: string): Printed;
}

/** Text and the directives that belong in front of it. */
export interface Printed {
  readonly text: string;
  readonly notes: readonly string[];
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const lossy = new TextDecoder('utf-8', { ignoreBOM: true });

/** The text of bytes; not `isExact` when they are no UTF-8. */
function decode(bytes: Uint8Array): { readonly text: string; readonly isExact: boolean } {
  try {
    return { text: utf8.decode(bytes), isExact: true };
  } catch {
    return { text: lossy.decode(bytes), isExact: false };
  }
}

/** Quoted strings, and a `bytes` directive for each that is no text. `index` is null for a single one. */
function stringTexts(strings: readonly Uint8Array[], isList: boolean): { words: string[]; notes: string[] } {
  const notes: string[] = [];
  const words = strings.map((bytes, index) => {
    const { text, isExact } = decode(bytes);
    if (!isExact) notes.push(`bytes ${isList ? `${index} ` : ''}${base64(bytes)}`);
    return quote(text);
  });
  return { words, notes };
}

/** The data of a tensor, ` {...}` or `["location": ...]`, and everything about it that takes directives. */
export function tensorData(tensor: Tensor, context: PrintContext): Printed {
  if (context.digest) return tensorDigest(tensor, context.digest);
  const notes = noteTexts(tensor, tensorResidue(tensor, canonicalTensor(tensor)), context);
  const { weight, strings, storage, dtype, dims } = tensor;
  const isConstants = (data: string): Printed => {
    if (storage !== (dtype === 'string' ? 'typed' : 'raw')) notes.unshift(`storage ${storage}`);
    return { text: `{${data}}`, notes };
  };
  if (strings) {
    const { words, notes: odd } = stringTexts(strings, true);
    for (const note of odd) notes.push(note);
    return isConstants(words.join(', '));
  }
  if (!weight) {
    if (dtype === 'string' || bitsOf(dtype) > 0) notes.push('nodata');
    return isConstants('');
  }
  if (weight.op === 'inline' && storage !== 'external') {
    if (context.elide && weight.byteLength > ELIDE_ABOVE) {
      return { text: entriesText([['elided', `${weight.byteLength} bytes`]]), notes: [] };
    }
    const { text, isExact } = literalText(weight.bytes, dtype, dims);
    if (!isExact) notes.push(`bytes ${base64(weight.bytes)}`);
    return isConstants(text);
  }
  const entries = weightEntries(weight, dtype, dims, context.locate, context.elide);
  if (storage !== 'external') entries.push(['storage', storage]);
  return { text: entriesText([...entries, ...externalExtras(tensor)]), notes };
}

/** Tensors above this size are shown as a hash where a digest is asked for. */
const DIGEST_ABOVE = 64;

/** What a tensor holds. How, and what else its message says, depends on who wrote the file. */
function tensorDigest({ weight, strings, dtype, dims }: Tensor, digest: Digest): Printed {
  if (strings) {
    const packed = packStrings(strings);
    if (packed.length > DIGEST_ABOVE) return digestOf(inlineWeight(packed, 'uint8', [packed.length]), digest);
    const { words, notes } = stringTexts(strings, true);
    return { text: `{${words.join(', ')}}`, notes };
  }
  if (!weight) return { text: '{}', notes: dtype === 'string' || bitsOf(dtype) > 0 ? ['nodata'] : [] };
  if (weight.byteLength > DIGEST_ABOVE) return digestOf(weight, digest);
  const bytes = digest.read(weight);
  const { text, isExact } = literalText(bytes, dtype, dims);
  return { text: `{${text}}`, notes: isExact ? [] : [`bytes ${base64(bytes)}`] };
}

function digestOf(weight: Weight, digest: Digest): Printed {
  return { text: entriesText([['sha256', digest.hash(weight)]]), notes: [] };
}

/** Strings as one run of bytes, the length of each before it. */
function packStrings(strings: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(strings.flatMap((bytes) => [Buffer.from(new Uint32Array([bytes.length]).buffer), bytes]));
}

function entriesText(entries: readonly (readonly [string, string])[]): string {
  return `[${entries.map(([key, value]) => `${quote(key)}: ${quote(value)}`).join(', ')}]`;
}

/** `[name] y, z = domain.Op:overload <a: int = 1> (x)`, the directives first. */
export function nodeLines(node: Node, indent: string, context: PrintContext): string {
  const notes = noteTexts(node, residueOf('NodeProto', node, canonicalNode(node)), context);
  const inner = `${indent}  `;
  const attributes = [...node.attributes].map(([name, attribute]) => {
    const printed = attributeText(name, attribute, inner, context);
    for (const note of printed.notes) notes.push(note);
    return printed.text;
  });
  const label = node.name === '' ? '' : `[${quoteName(node.name)}] `;
  const outputs = node.outputs.map((value) => quoteName(value?.name ?? '')).join(', ');
  const inputs = `(${node.inputs.map((value) => quoteName(value?.name ?? '')).join(', ')})`;
  let text = `${label}${outputs === '' ? '' : `${outputs} `}= ${opText(node)} `;
  if (attributes.length === 0) text += inputs;
  else if (node.subgraphs.length === 0) text += `<${attributes.join(', ')}> ${inputs}`;
  else text += `${inputs} <\n${attributes.map((each) => inner + each).join(',\n')}\n${indent}>`;
  return `${context.noteLines(notes, indent)}${indent}${text}`;
}

function opText({ domain, opType, overload }: Node): string {
  const isPlain = domain.split('.').every(isIdentifier);
  const head = domain === '' ? '' : `${isPlain ? domain : quote(domain)}.`;
  return `${head}${bare(opType)}${overload === '' ? '' : `:${bare(overload)}`}`;
}

/** A name where the official syntax takes any identifier, and nothing else. */
function bare(name: string): string {
  return isIdentifier(name) ? name : quote(name);
}

/** `name: type = value`, and directives that say which attribute they are for. */
export function attributeText(name: string, attribute: Attribute, indent: string, context: PrintContext): Printed {
  const types = attributeTypes(attribute);
  const residue = attributeResidue(attribute, canonicalAttribute(name, attribute, types));
  const own = noteTexts({ docString: attribute.docString }, residue, context);
  const inner: string[] = [];
  let value: string;
  switch (attribute.kind) {
    case 'float':
      value = floatAttributeText(attribute.value);
      break;
    case 'int':
      value = String(attribute.value);
      break;
    case 'floats':
      value = `[${attribute.value.map(floatAttributeText).join(', ')}]`;
      break;
    case 'ints':
      value = `[${attribute.value.join(', ')}]`;
      break;
    case 'string':
    case 'strings': {
      const isList = attribute.kind === 'strings';
      const { words, notes: odd } = stringTexts(isList ? attribute.value : [attribute.value], isList);
      for (const note of odd) own.push(note);
      value = isList ? `[${words.join(', ')}]` : (words[0] as string);
      break;
    }
    case 'tensor':
      value = attributeTensor(attribute.value, `tensor ${bareWord(name)}`, inner, context);
      break;
    case 'tensors': {
      const texts = attribute.value.map((tensor, index) =>
        attributeTensor(tensor, `tensor ${bareWord(name)} ${index}`, inner, context),
      );
      value = `[${texts.join(', ')}]`;
      break;
    }
    case 'graph':
      value = attributeGraph(attribute.value, indent, context);
      break;
    case 'graphs':
      value = `[${attribute.value.map((graph) => attributeGraph(graph, indent, context)).join(', ')}]`;
      break;
    case 'ref':
      value = `@${quoteName(attribute.value)}`;
      break;
    case 'opaque':
      value = typesText(attribute.type === TYPE_PROTOS, types.map(typeText));
      break;
  }
  const notes = [...own.map((note) => `attribute ${bareWord(name)} ${note}`), ...inner];
  const code = attributeTypeCode(attribute);
  const isUntyped = attribute.kind === 'ref' && code === 0;
  return { text: `${bare(name)}${isUntyped ? '' : `: ${attributeTypeName(code)}`} = ${value}`, notes };
}

const TYPE_PROTOS = 14;

/** Types that the syntax can say; everything opaque else is in directives, behind an empty pair of braces. */
function typesText(isList: boolean, texts: readonly (string | null)[]): string {
  if (texts.some((text) => text === null) || (texts.length === 0 && !isList)) return '{}';
  return isList ? `[${texts.join(', ')}]` : (texts[0] as string);
}

/** Codes newer than this schema print as `type15`. */
export function attributeTypeName(code: number): string {
  return ATTRIBUTE_TYPES[code] ?? `type${code}`;
}

function attributeTensor(tensor: Tensor, prefix: string, notes: string[], context: PrintContext): string {
  const printed = tensorData(tensor, context);
  // The official parser takes no quoted name here.
  const isSayable = tensor.name === '' || isIdentifier(tensor.name);
  if (!isSayable) notes.push(`${prefix} name ${word(tensor.name)}`);
  for (const note of printed.notes) notes.push(`${prefix} ${note}`);
  const name = isSayable && tensor.name !== '' ? ` ${tensor.name}` : '';
  return `${tensorText(tensor.dtype, tensor.dims)}${name} ${printed.text.startsWith('[') ? '= ' : ''}${printed.text}`;
}

function attributeGraph(graph: Graph, indent: string, context: PrintContext): string {
  const { text, notes } = context.graph(graph, indent);
  const lines = context.noteLines(notes, indent);
  return lines === '' ? text : `\n${lines}${indent}${text}`;
}
