/**
 * Types of less than a byte, where an expression cuts inside bytes: the whole weight is unpacked to one byte per element,
 * evaluated, and packed again. Aligned cuts never come here (tile.ts treats them as bytes).
 */
import { bitsOf, elementCount } from '../type.js';
import type { InlineWeight, SourceWeight, Weight } from '../weight.js';

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
