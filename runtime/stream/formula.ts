/** Writes a computation into a graph, node by node. */
import { type Attribute, type Graph, Tensor, type Value } from '../../ir/core.js';
import { type DataType, dataTypeCode, tensorType } from '../../ir/type.js';
import { inlineWeight } from '../../ir/weight.js';

type Attributes = Readonly<Record<string, Attribute>>;

export class Formula {
  constructor(readonly graph: Graph) {}

  node(opType: string, inputs: readonly Value[], dtype: DataType = 'float', attributes: Attributes = {}): Value {
    const name = this.graph.names.fresh(`onnx_fuse.${opType}`);
    const outputs = [{ name, type: tensorType(dtype, null) }];
    return this.graph.addNode({ opType, name, inputs, outputs, attributes }).output(0) as Value;
  }

  input(name: string, dtype: DataType): Value {
    return this.graph.addInput(name, tensorType(dtype, null));
  }

  cast(value: Value, to: DataType): Value {
    return this.node('Cast', [value], to, { to: int(dataTypeCode(to)) });
  }

  /** A vector of one number. */
  number(value: number, dtype: 'float' | 'int64' = 'float'): Value {
    const bytes = dtype === 'float' ? new Float32Array([value]) : new BigInt64Array([BigInt(value)]);
    const name = this.graph.names.fresh('onnx_fuse.number');
    const weight = inlineWeight(new Uint8Array(bytes.buffer), dtype, [1]);
    return this.graph.addInitializer(name, new Tensor(name, dtype, [1], weight));
  }

  /** Makes `value` the output `name`. */
  give(name: string, value: Value, dtype: DataType = 'float'): void {
    const spec = { opType: 'Identity', inputs: [value], outputs: [{ name, type: tensorType(dtype, null) }] };
    this.graph.addOutput(this.graph.addNode(spec).output(0) as Value);
  }
}

/** An attribute of one integer. */
export function int(value: number): Attribute {
  return { kind: 'int', value: BigInt(value) };
}

/** An attribute of integers. */
export function ints(...values: readonly number[]): Attribute {
  return { kind: 'ints', value: values.map(BigInt) };
}
