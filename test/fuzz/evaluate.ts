/**
 * A plain interpreter of ONNX files in double precision: what the decoders of the fuzzer compute, without onnxruntime and
 * without a line of the code under test. Collectives between ranks are met in step (`evaluateRanks`).
 */
import { ATTENTION } from './operators/attention.js';
import { ELEMENTWISE } from './operators/elementwise.js';
import { LINEAR } from './operators/linear.js';
import { joined, SHAPES } from './operators/shapes.js';
import { type Call, INT64, type Operator, sizeOf, type Tensor, tensor } from './operators/tensor.js';
import {
  bytesOf,
  childOf,
  childrenOf,
  floatsOf,
  integersOf,
  type Message,
  parseMessage,
  textOf,
  textsOf,
} from './wire.js';

const OPERATORS = new Map<string, Operator>(Object.entries({ ...ELEMENTWISE, ...SHAPES, ...LINEAR, ...ATTENTION }));

type Attribute = number | readonly number[] | string | Tensor | Scope;

interface Step {
  readonly name: string;
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, Attribute>;
}

/** A graph, or the body of a function. */
interface Scope {
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly steps: readonly Step[];
  readonly constants: ReadonlyMap<string, Tensor>;
}

/** A model, ready to be evaluated. */
export interface Program extends Scope {
  readonly opset: number;
  readonly functions: ReadonlyMap<string, Scope>;
}

/** Values by name. */
export type Values = ReadonlyMap<string, Tensor>;

/** Reads a model whose weights are all inside its bytes. Throws a RangeError for anything else. */
export function loadProgram(bytes: Uint8Array): Program {
  const model = parseMessage(bytes, 'model');
  const opsets = childrenOf(model, 8).map((each) => [textOf(each, 1), Number(integersOf(each, 2)[0])] as const);
  const functions = new Map(
    childrenOf(model, 25).map((body): [string, Scope] => [
      nameOf(textOf(body, 10), textOf(body, 1)),
      { inputs: textsOf(body, 4), outputs: textsOf(body, 5), steps: stepsOf(body, 7), constants: new Map() },
    ]),
  );
  const graph = childOf(model, 7);
  if (!graph) throw new RangeError('a model without a graph');
  const opset = opsets.find(([domain]) => domain === '' || domain === 'ai.onnx')?.[1] ?? 1;
  return { ...scopeOf(graph), opset, functions };
}

function scopeOf(graph: Message): Scope {
  return {
    inputs: childrenOf(graph, 11).map((value) => textOf(value, 1)),
    outputs: childrenOf(graph, 12).map((value) => textOf(value, 1)),
    steps: stepsOf(graph, 1),
    constants: new Map(childrenOf(graph, 5).map((each) => [textOf(each, 8), tensorOf(each)])),
  };
}

function stepsOf(message: Message, field: number): Step[] {
  return childrenOf(message, field).map((node) => ({
    name: textOf(node, 3),
    op: nameOf(textOf(node, 7), textOf(node, 4)),
    inputs: textsOf(node, 1),
    outputs: textsOf(node, 2),
    attributes: new Map(childrenOf(node, 5).map((each) => [textOf(each, 1), attributeOf(each)])),
  }));
}

function nameOf(domain: string, op: string): string {
  return domain === '' || domain === 'ai.onnx' ? op : `${domain}.${op}`;
}

function attributeOf(message: Message): Attribute {
  const kind = Number(integersOf(message, 20)[0] ?? 0n);
  switch (kind) {
    case 1:
      return floatsOf(message, 2).at(-1) ?? 0;
    case 2:
      return Number(integersOf(message, 3).at(-1) ?? 0n);
    case 3:
      return textOf(message, 4);
    case 4:
      return tensorOf(childOf(message, 5) as Message);
    case 5:
      return scopeOf(childOf(message, 6) as Message);
    case 6:
      return floatsOf(message, 7);
    case 7:
      return integersOf(message, 8).map(Number);
  }
  throw new RangeError(`an attribute of type ${kind}`);
}

/** Bytes of an element, by TensorProto.DataType. */
const WIDTHS: Readonly<Record<number, number>> = { 1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 16: 2 };

function tensorOf(message: Message): Tensor {
  const dims = integersOf(message, 1).map(Number);
  const type = Number(integersOf(message, 2)[0] ?? 0n);
  const count = sizeOf(dims);
  if (integersOf(message, 14)[0] === 1n) throw new RangeError(`'${textOf(message, 8)}' lies in another file`);
  const [raw] = bytesOf(message, 9);
  if (!raw) {
    const values = type === 1 ? floatsOf(message, 4) : integersOf(message, type === INT64 ? 7 : 5).map(Number);
    return tensor(dims, type === 10 ? values.map(halfOf) : values, type);
  }
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  if (type === 21 || type === 22) {
    const nibble = (i: number): number => ((raw[i >> 1] as number) >> (4 * (i % 2))) & 15;
    const signed = (x: number): number => (type === 22 && x > 7 ? x - 16 : x);
    return tensor(
      dims,
      Array.from({ length: count }, (_, i) => signed(nibble(i))),
      type,
    );
  }
  const width = WIDTHS[type];
  if (width === undefined || raw.length !== count * width) {
    throw new RangeError(`'${textOf(message, 8)}' has ${raw.length} bytes for ${count} elements of type ${type}`);
  }
  const data = new Float64Array(count);
  for (let i = 0; i < count; i++) data[i] = elementOf(view, i * width, type);
  return { dims, data, type };
}

function elementOf(view: DataView, at: number, type: number): number {
  switch (type) {
    case 1:
      return view.getFloat32(at, true);
    case 3:
      return view.getInt8(at);
    case 6:
      return view.getInt32(at, true);
    case 7:
      return Number(view.getBigInt64(at, true));
    case 10:
      return halfOf(view.getUint16(at, true));
    case 11:
      return view.getFloat64(at, true);
    case 16: {
      const wide = new DataView(new ArrayBuffer(4));
      wide.setUint16(0, view.getUint16(at, true));
      return wide.getFloat32(0);
    }
  }
  return view.getUint8(at);
}

function halfOf(bits: number): number {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}

/** What a rank comes to: its share of a collective. */
export interface Meeting {
  readonly kind: 'all-reduce' | 'all-gather';
  /** Of a gather; null is the last one. */
  readonly axis: number | null;
  readonly given: Tensor;
}

/** A collective between a graph output and a graph input, for which there is no node. */
export interface Border {
  readonly kind: Meeting['kind'];
  readonly axis: number | null;
  readonly gives: string;
  readonly gets: string | null;
}

type Walk<T> = Generator<Meeting, T, Tensor>;

/** Evaluates a model, stopping at each collective for what the ranks have together. Returns all values of the graph. */
function* walk(program: Program, feeds: Values, borders: readonly Border[] = []): Walk<Map<string, Tensor>> {
  const values = new Map<string, Tensor>([...program.constants, ...feeds]);
  yield* walkSteps(program.steps, program, [values], borders);
  for (const name of program.outputs) if (!values.has(name)) throw new RangeError(`nothing gives the output '${name}'`);
  return values;
}

function* walkSteps(
  steps: readonly Step[],
  program: Program,
  scopes: readonly Map<string, Tensor>[],
  borders: readonly Border[],
): Walk<void> {
  const values = scopes[0] as Map<string, Tensor>;
  for (const step of steps) {
    const inputs = step.inputs.map((name) => {
      if (name === '') return null;
      const found = scopes.find((scope) => scope.has(name))?.get(name);
      if (!found) throw new RangeError(`${step.op} '${step.name}' reads '${name}', which nothing gives`);
      return found;
    });
    const results = yield* apply(step, inputs, program, scopes);
    for (const [i, name] of step.outputs.entries()) {
      const result = results[i];
      if (name === '' || !result) continue;
      values.set(name, result);
      const border = borders.find(({ gives }) => gives === name);
      if (!border) continue;
      const { kind, axis } = border;
      values.set(border.gets ?? name, yield { kind, axis, given: result });
    }
  }
}

function* apply(
  step: Step,
  inputs: readonly (Tensor | null)[],
  program: Program,
  scopes: readonly Map<string, Tensor>[],
): Walk<readonly Tensor[]> {
  const { op, attributes } = step;
  const [first] = inputs;
  switch (op) {
    case 'Constant':
      return [constantOf(attributes)];
    case 'If': {
      const branch = attributes.get(first?.data[0] ? 'then_branch' : 'else_branch') as Scope;
      const own = new Map(branch.constants);
      yield* walkSteps(branch.steps, program, [own, ...scopes], []);
      const all = [own, ...scopes];
      return branch.outputs.map((name) => all.find((scope) => scope.has(name))?.get(name) as Tensor);
    }
    case 'com.microsoft.AllReduce':
      return [yield { kind: 'all-reduce', axis: null, given: first as Tensor }];
    case 'com.microsoft.AllGather':
      return [yield { kind: 'all-gather', axis: (attributes.get('axis') as number) ?? 0, given: first as Tensor }];
    case 'DistCollective': {
      const isGather = attributes.get('collective_operation') === 'all_gather';
      return [
        yield { kind: isGather ? 'all-gather' : 'all-reduce', axis: isGather ? 0 : null, given: first as Tensor },
      ];
    }
  }
  const body = program.functions.get(op);
  if (body) {
    const own = new Map<string, Tensor>();
    for (const [i, name] of body.inputs.entries()) if (inputs[i]) own.set(name, inputs[i]);
    yield* walkSteps(body.steps, program, [own], []);
    return body.outputs.map((name) => own.get(name) as Tensor);
  }
  const operator = OPERATORS.get(op);
  if (!operator) throw new RangeError(`the evaluator has no ${op}`);
  return operator(callOf(step, inputs, program.opset));
}

function constantOf(attributes: ReadonlyMap<string, Attribute>): Tensor {
  const [[name, value]] = [...attributes] as [[string, Attribute]];
  if (typeof value === 'number') return tensor([], [value], name === 'value_int' ? INT64 : 1);
  if (Array.isArray(value)) return tensor([value.length], value, name === 'value_ints' ? INT64 : 1);
  return value as Tensor;
}

function callOf({ op, outputs, attributes }: Step, inputs: readonly (Tensor | null)[], opset: number): Call {
  const read = (name: string): Attribute | undefined => attributes.get(name);
  return {
    op,
    inputs,
    outputCount: outputs.length,
    opset,
    number: (name) => read(name) as number | undefined,
    numbers: (name) => read(name) as readonly number[] | undefined,
    text: (name) => read(name) as string | undefined,
  };
}

/** The outputs of a model. Throws a RangeError where it cannot be evaluated. */
export function evaluate(program: Program, feeds: Values): Map<string, Tensor> {
  const walking = walk(program, feeds);
  const next = walking.next();
  if (!next.done) throw new RangeError('a collective without ranks');
  return new Map(program.outputs.map((name) => [name, next.value.get(name) as Tensor]));
}

/** The outputs of every rank of a group, all evaluated in step. Throws where they do not meet. */
export function evaluateRanks(
  programs: readonly Program[],
  feeds: readonly Values[],
  borders: readonly (readonly Border[])[],
): Map<string, Tensor>[] {
  const walks = programs.map((program, rank) => walk(program, feeds[rank] as Values, borders[rank]));
  let states = walks.map((each) => each.next());
  while (states.some(({ done }) => !done)) {
    const meetings = states.map(({ done, value }) => (done ? null : (value as Meeting)));
    const [first] = meetings;
    if (!first || meetings.some((each) => each?.kind !== first.kind)) throw new RangeError('ranks do not meet');
    const shares = meetings.map((each) => (each as Meeting).given);
    const result =
      first.kind === 'all-reduce'
        ? summed(shares)
        : joined(shares, first.axis ?? (shares[0] as Tensor).dims.length - 1);
    states = walks.map((each) => each.next(result));
  }
  return states.map(({ value }, rank) => {
    const values = value as Map<string, Tensor>;
    return new Map((programs[rank] as Program).outputs.map((name) => [name, values.get(name) as Tensor]));
  });
}

function summed(shares: readonly Tensor[]): Tensor {
  const [first] = shares as [Tensor];
  const data = new Float64Array(first.data.length);
  for (const share of shares) {
    if (share.dims.join() !== first.dims.join()) throw new RangeError(`ranks give [${first.dims}] and [${share.dims}]`);
    for (const [i, value] of share.data.entries()) data[i] = (data[i] as number) + value;
  }
  return { ...first, data };
}
