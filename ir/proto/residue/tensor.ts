/** What TensorProtos say beyond type, data and documentation: see residue.ts. */
import type { Tensor } from '../../core.js';
import { typedField, typedPayload } from '../canonical.js';
import { carry, type OriginalTensor, originalOf } from '../carried.js';
import { copyMessage, type Messages } from '../messages.js';
import { BYTES } from '../wire.js';
import { type RangeNote, type Residue, rangeOfBytes, residueOfOriginal, restore } from './residue.js';

/** The fields that hold a tensor's data, as far as its weight tells. */
export function impliedRanges(tensor: Tensor): readonly RangeNote[] {
  const { weight, storage } = tensor;
  if (storage === 'external' || !weight) return [];
  if (storage === 'raw') {
    if (weight.op === 'inline') return [rangeOfBytes(9, BYTES, weight.bytes)];
    if (weight.op !== 'source') return [];
    return [
      {
        number: 9,
        wireType: BYTES,
        bytes: null,
        source: weight.source,
        offset: weight.offset,
        length: weight.byteLength,
      },
    ];
  }
  const field = typedField(tensor.dtype);
  if (weight.op === 'inline') return [rangeOfBytes(field, BYTES, typedPayload(tensor.dtype, weight.bytes))];
  if (weight.op !== 'source') return [];
  return [
    {
      number: field,
      wireType: BYTES,
      bytes: null,
      source: weight.source,
      offset: weight.offset,
      length: weight.byteLength,
    },
  ];
}

/** What a tensor carries beyond its dims, type, data and documentation. */
export function tensorResidue(tensor: Tensor, canonical: Messages['TensorProto']): Residue | null {
  const old = originalOf<OriginalTensor>(tensor.carried);
  if (!old) return null;
  // Where the bytes are, the text says by itself.
  const message = copyMessage('TensorProto', old.message);
  delete message.externalData;
  if (message.dataLocation === EXTERNAL) delete message.dataLocation;
  // Data that have moved since the tensor was read are written from the weight.
  const isCarried = old.storage === tensor.storage && tensor.storage !== 'external';
  const ranges = isCarried ? old.ranges : [];
  return residueOfOriginal(
    'TensorProto',
    { ...old, message, ranges },
    canonical,
    isCarried ? impliedRanges(tensor) : [],
  );
}

/** TensorProto.DataLocation. */
const EXTERNAL = 1;

/** The external_data entries that say something else than where the bytes are. */
export function externalExtras(tensor: Tensor): [key: string, value: string][] {
  const entries = originalOf<OriginalTensor>(tensor.carried)?.message.externalData ?? [];
  return entries
    .map((entry): [string, string] => [entry.key ?? '', entry.value ?? ''])
    .filter(([key]) => !['location', 'offset', 'length'].includes(key));
}

/** As `restore`, for a tensor. `extras` are further entries of its external data. */
export function restoreTensor(
  tensor: Tensor,
  canonical: Messages['TensorProto'],
  residue: Residue | null,
  extras: readonly (readonly [string, string])[],
): void {
  const base = restore('TensorProto', canonical, residue, impliedRanges(tensor));
  if (extras.length > 0) base.message.externalData = extras.map(([key, value]) => ({ key, value }));
  const isExpression = tensor.weight !== null && tensor.weight.op !== 'inline' && tensor.weight.op !== 'source';
  // An expression has no range of bytes: claiming another place makes the encoder write it from the weight.
  const storage = tensor.storage === 'external' || isExpression ? 'external' : tensor.storage;
  const carried: OriginalTensor = { ...base, storage };
  tensor.carried = carry(carried);
}
