/** Products with the matrices of a random decoder, as they may be stored. */
import { Tensor, type Value } from '../../../ir/core.js';
import { inlineWeight } from '../../../ir/weight.js';
import { type Builder, float, int, ints } from './build.js';
import type { Format } from './spec.js';

/** x times a matrix [rows, columns], plus its bias. */
export function buildLinear(
  builder: Builder,
  x: Value,
  key: string,
  rows: number,
  columns: number,
  { format, bias, isGemm = false }: { format: Format; bias: boolean; isGemm?: boolean },
): Value {
  const name = builder.named(key, 'weight');
  const shift = bias
    ? builder.floats(builder.named(key, 'bias'), [columns], builder.weights.shift(`${key}.bias`, columns))
    : null;
  if (format.kind === 'blocks') {
    const result = blocks(builder, x, key, name, rows, columns, format);
    return shift ? builder.op('Add', [result, shift]) : result;
  }
  if (isGemm) {
    const dense = builder.weights.matrix(key, rows, columns);
    const turned = Float64Array.from(dense, (_, i) => dense[(i % rows) * columns + Math.floor(i / rows)] as number);
    const weight = builder.floats(name, [columns, rows], turned);
    return builder.op('Gemm', shift ? [x, weight, shift] : [x, weight], { transB: int(1) });
  }
  const weight =
    format.kind === 'integers'
      ? integers(builder, key, name, rows, columns, format)
      : dense(builder, key, name, rows, columns, format.behind);
  // An operator with a factor of its own multiplies half the matrix by two.
  const isHalved = format.kind === 'dense' && format.behind === 'factor';
  const result = isHalved
    ? builder.op('FusedMatMul', [x, weight], { alpha: float(2) }, 'com.microsoft')
    : builder.op('MatMul', [x, weight]);
  return shift ? builder.op('Add', [shift, result]) : result;
}

function dense(builder: Builder, key: string, name: string, rows: number, columns: number, behind: string): Value {
  const values = builder.weights.matrix(key, rows, columns);
  if (behind === 'transpose') {
    const turned = Float64Array.from(values, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)] as number);
    return builder.op('Transpose', [builder.floats(name, [columns, rows], turned)], { perm: ints([1, 0]) });
  }
  if (behind === 'identity') return builder.op('Identity', [builder.floats(name, [rows, columns], values)]);
  if (behind === 'factor')
    return builder.floats(
      name,
      [rows, columns],
      values.map((value) => value / 2),
    );
  if (behind !== 'constant') return builder.floats(name, [rows, columns], values);
  const bytes = new Uint8Array(Float32Array.from(values).buffer);
  const tensor = new Tensor('', 'float', [rows, columns], inlineWeight(bytes, 'float', [rows, columns]));
  return builder.op('Constant', [], { value: { kind: 'tensor', value: tensor } });
}

function integers(
  builder: Builder,
  key: string,
  name: string,
  rows: number,
  columns: number,
  format: Format & { kind: 'integers' },
): Value {
  const { levels, scales, zeros } = builder.weights.quantised(key, rows, columns, format);
  const dims =
    format.scales === 'tensor' ? [] : format.scales === 'column' ? [columns] : [Math.ceil(rows / 16), columns];
  const operands = [
    builder.constant(name, 'int8', [rows, columns], new Uint8Array(Int8Array.from(levels).buffer)),
    builder.floats(`${name}_scale`, dims, scales),
    ...(zeros
      ? [builder.constant(`${name}_zero_point`, 'int8', dims, new Uint8Array(Int8Array.from(zeros).buffer))]
      : []),
  ];
  if (format.scales === 'tensor') return builder.op('DequantizeLinear', operands);
  const isBlocked = format.scales === 'blocks';
  return builder.op('DequantizeLinear', operands, isBlocked ? { axis: int(0), block_size: int(16) } : { axis: int(1) });
}

function blocks(
  builder: Builder,
  x: Value,
  key: string,
  name: string,
  rows: number,
  columns: number,
  format: Format & { kind: 'blocks' },
): Value {
  const { bits, block, zeros } = format;
  const { levels, scales, zeros: points } = builder.weights.quantised(key, rows, columns, format);
  const count = Math.ceil(rows / block);
  const pack = (values: ArrayLike<number>, width: number): Uint8Array => {
    const rowBytes = Math.ceil((width * bits) / 8);
    const bytes = new Uint8Array((values.length / width) * rowBytes);
    for (let i = 0; i < values.length; i++) {
      const bit = (i % width) * bits;
      const at = Math.floor(i / width) * rowBytes + Math.floor(bit / 8);
      bytes[at] = (bytes[at] as number) | ((values[i] as number) << (bit % 8));
    }
    return bytes;
  };
  const operands = [
    x,
    builder.constant(`${name}_q`, 'uint8', [columns, count, (block * bits) / 8], pack(levels, count * block)),
    builder.floats(`${name}_scales`, [columns, count], scales),
  ];
  if (points && zeros === 'float') operands.push(builder.floats(`${name}_zeros`, [columns, count], points));
  if (points && zeros === 'packed') {
    const packed = pack(points, count);
    operands.push(builder.constant(`${name}_zeros`, 'uint8', [columns, packed.length / columns], packed));
  }
  const attributes = { K: int(rows), N: int(columns), bits: int(bits), block_size: int(block) };
  return builder.op('MatMulNBits', operands, attributes, 'com.microsoft');
}
