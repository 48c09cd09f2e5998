/** Changes single numbers in what Reshape, Expand and Split read as a shape, where those are computed too. */
import type { Value } from '../../ir/core.js';
import { inlineWeight } from '../../ir/weight.js';
import { resizedType, type Spread } from '../analysis/heads/spread.js';
import { constantOf, numbersOf, sizesWeight } from '../analysis/values/constants.js';
import type { Dimensions } from '../analysis/values/dimensions.js';
import type { Rewriter } from './rewriter.js';

/** States the size that a value with heads has from now on. */
export function resize(value: Value, spread: Spread): void {
  const type = resizedType(value.type, spread);
  if (type !== value.type) value.type = type;
}

/** Mends constants and attributes that state a size which changes. */
export class SizePatcher {
  /** Shapes made so far, by what they were made of. */
  readonly #patched = new Map<string, Value>();

  constructor(
    readonly rewriter: Rewriter,
    readonly dimensions: Dimensions,
    readonly prefix: string,
  ) {}

  /** The integer tensor `value` with another element. What else reads it goes on reading the old one. */
  withElement(value: Value, position: number, element: number): Value {
    const key = `${value.name},${position},${element}`;
    const known = this.#patched.get(key);
    if (known && !known.isUnused) return known;
    const made = this.#patch(value, position, element);
    this.#patched.set(key, made);
    return made;
  }

  #patch(value: Value, position: number, element: number): Value {
    const weight = constantOf(value);
    const numbers = numbersOf(weight);
    if (weight && numbers) {
      numbers[position] = element;
      const bytes = weight.dtype === 'int32' ? new Int32Array(numbers) : new BigInt64Array(numbers.map(BigInt));
      const patched = inlineWeight(new Uint8Array(bytes.buffer), weight.dtype, weight.dims);
      return this.rewriter.addWeight(`${this.prefix}.shape`, patched);
    }
    // A list of one computed size.
    if (this.dimensions.elements(value)?.length === 1) {
      return this.rewriter.addWeight(`${this.prefix}.shape`, sizesWeight([element]));
    }
    const node = value.producer;
    if (!node) throw new RangeError(`'${value.name}' is no list of sizes`);
    const inputs = [...node.inputs];
    const place = this.#partWith(node.op, inputs, position);
    inputs[place.index] = this.withElement(inputs[place.index] as Value, place.position, element);
    const made = node.graph.addNode(
      {
        opType: node.opType,
        name: node.name,
        inputs,
        outputs: [{ name: value.name, type: value.type }],
        attributes: Object.fromEntries(node.attributes),
      },
      { after: node },
    );
    return made.output(0) as Value;
  }

  /** Which operand of a node holds the element, and where. */
  #partWith(op: string, inputs: readonly (Value | null)[], position: number): { index: number; position: number } {
    if (op === 'Where') return { index: 2, position };
    if (op !== 'Concat') return { index: 0, position };
    let left = position;
    for (const [index, input] of inputs.entries()) {
      const length = this.dimensions.elements(input as Value)?.length ?? 0;
      if (left < length) return { index, position: left };
      left -= length;
    }
    throw new RangeError(`${op} has no element ${position}`);
  }
}
