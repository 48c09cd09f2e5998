/**
 * Types of less than a byte. Expressions that cut between bytes are evaluated as such over bytes (`asBytes`). Where one
 * cuts inside bytes, the whole weight is unpacked to one byte per element, evaluated, and packed again.
 */
import { bitsOf, elementCount } from '../../type.js';
import {
  concat,
  type InlineWeight,
  inlineWeight,
  type SourceWeight,
  slice,
  sourceWeight,
  type Weight,
} from '../../weight.js';

/** The packed bytes of `weight`; `read` gives those of its leaves. */
export function evaluatePacked(weight: Weight, read: (leaf: SourceWeight | InlineWeight) => Uint8Array): Uint8Array {
  const bits = bitsOf(weight.dtype);
  const elements = unpacked(weight, read);
  const packed = new Uint8Array(weight.byteLength);
  for (const [i, element] of elements.entries()) {
    const bit = i * bits;
    const index = Math.floor(bit / 8);
    packed[index] = (packed[index] as number) | (element << (bit % 8));
  }
  return packed;
}

function unpacked(weight: Weight, read: (leaf: SourceWeight | InlineWeight) => Uint8Array): Uint8Array {
  const { dims } = weight;
  const count = elementCount(dims);
  const result = new Uint8Array(count);
  switch (weight.op) {
    case 'source':
    case 'inline': {
      const bits = bitsOf(weight.dtype);
      const bytes = read(weight);
      for (let i = 0; i < count; i++) {
        result[i] = ((bytes[Math.floor((i * bits) / 8)] as number) >> ((i * bits) % 8)) & (2 ** bits - 1);
      }
      return result;
    }
    case 'slice': {
      const inner = elementCount(dims.slice(weight.axis + 1));
      const length = (weight.end - weight.start) * inner;
      const stride = (weight.operand.dims[weight.axis] as number) * inner;
      const operand = unpacked(weight.operand, read);
      for (let outer = 0; outer * length < count; outer++) {
        const from = outer * stride + weight.start * inner;
        result.set(operand.subarray(from, from + length), outer * length);
      }
      return result;
    }
    case 'concat': {
      const stride = elementCount(dims.slice(weight.axis));
      let at = 0;
      for (const part of weight.parts) {
        const length = elementCount(part.dims.slice(weight.axis));
        const elements = unpacked(part, read);
        for (let outer = 0; outer * length < elements.length; outer++) {
          result.set(elements.subarray(outer * length, (outer + 1) * length), outer * stride + at);
        }
        at += length;
      }
      return result;
    }
    case 'transpose': {
      const [rows = 0, columns = 0] = weight.operand.dims;
      const operand = unpacked(weight.operand, read);
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < columns; c++) result[c * rows + r] = operand[r * columns + c] as number;
      }
      return result;
    }
    default:
      throw new TypeError(`no arithmetic on ${weight.dtype}`);
  }
}

/** A packed 4-bit or 2-bit expression as one over bytes; null where its cuts fall inside a byte. */
export function asBytes(weight: Weight): Weight | null {
  const perByte = 8 / bitsOf(weight.dtype);
  const last = weight.dims.length - 1;
  if (last < 0 || (weight.dims[last] as number) % perByte !== 0) return null;
  const dims = weight.dims.map((dim, axis) => (axis === last ? dim / perByte : dim));
  switch (weight.op) {
    case 'source':
      return sourceWeight(weight.source, weight.offset, 'uint8', dims);
    case 'inline':
      return inlineWeight(weight.bytes, 'uint8', dims);
    case 'slice': {
      const unit = weight.axis === last ? perByte : 1;
      const operand = asBytes(weight.operand);
      if (!operand || weight.start % unit !== 0) return null;
      return slice(operand, weight.axis, weight.start / unit, weight.end / unit);
    }
    case 'concat': {
      const parts = weight.parts.map(asBytes);
      return parts.every((part) => part !== null) ? concat(parts, weight.axis) : null;
    }
    default:
      return null;
  }
}
