/**
 * Twins: forms of a model that are run in its place, to judge it where it does not run, or not exactly.
 *
 * The fp32 twin of a bfloat16 model. onnxruntime has no bfloat16 kernels on a CPU, and bfloat16 is float with the lower
 * half of its bits cut off: widening every constant is exact, so a twin computes what the model computes on a device
 * that accumulates in fp32, without the rounding of activations. Two twins differ by what was done to the weights: a
 * fold rounds each weight to bfloat16 once more.
 *
 * The full-accuracy twin of a model whose MatMulNBits may round their activations to int8 (accuracy_level 4). The kernels
 * that do so round differently in graphs that are equal but for the order of additions, so that a right result and a wrong
 * one are hard to tell apart; the twin multiplies with the activations as they are.
 */
import { type Attribute, type Graph, type Model, type Node, Tensor } from '../../ir/core.js';
import { type DataType, dataTypeCode, tensorType } from '../../ir/type.js';
import { allGraphs, allTensors } from '../../ir/walk.js';
import { cast } from '../../ir/weight.js';

/** Attributes that hold the code of an element type: those of Cast, random numbers, (de)quantisation, norms, Attention. */
const TYPE_ATTRIBUTES = new Set(['to', 'dtype', 'output_dtype', 'stash_type', 'softmax_precision']);

/** True when a tensor, an input, an output or a computation of the model is of type bfloat16. */
export function usesBfloat16(model: Model): boolean {
  const type = 'bfloat16';
  for (const { dtype } of allTensors(model)) if (dtype === type) return true;
  for (const graph of allGraphs(model)) {
    for (const { dtype } of graph.values) if (dtype === type) return true;
    for (const { attributes } of graph.nodes()) {
      for (const [name, attribute] of attributes) if (names(type, name, attribute)) return true;
    }
  }
  return false;
}

/**
 * Turns every bfloat16 of the model into float, in place, in all graphs and functions: constants (as expressions, nothing
 * is read), stated types, types that attributes name. Returns the model. Other types stay. Sparse and sequence types of
 * bfloat16 stay too: a session refuses them by name.
 */
export function floatTwin(model: Model): Model {
  return changeType(model, 'bfloat16', 'float');
}

/** `floatTwin` for any two floating-point types; constants are rounded where `to` is the narrower one. */
export function changeType(model: Model, from: DataType, to: DataType): Model {
  const change: Change = { from, to };
  for (const graph of allGraphs(model)) changeGraph(graph, change);
  return model;
}

/** A form in which models are judged. */
export interface Twin {
  /** What is said of it: `through an fp32 twin`. */
  readonly note: string;
  /** Turns a model into its twin, in place, and returns it. */
  make(model: Model): Model;
}

export const FLOAT_TWIN: Twin = { note: 'through an fp32 twin', make: floatTwin };
export const FULL_ACCURACY_TWIN: Twin = { note: 'at accuracy_level 0', make: atFullAccuracy };

/** MatMulNBits may round its activations to int8 from this level on. */
const ROUNDING_LEVEL = 4n;

function roundsActivations(node: Node): boolean {
  const level = node.opType === 'MatMulNBits' ? node.attributes.get('accuracy_level') : undefined;
  return level?.kind === 'int' && level.value >= ROUNDING_LEVEL;
}

/** True when a MatMulNBits of the model may round its activations to int8. */
export function mayRoundActivations(model: Model): boolean {
  return [...allGraphs(model)].some((graph) => [...graph.nodes()].some(roundsActivations));
}

/** Takes the leave to round activations from every MatMulNBits, in place. Returns the model. */
export function atFullAccuracy(model: Model): Model {
  for (const graph of allGraphs(model)) {
    for (const node of graph.nodes()) {
      if (roundsActivations(node)) node.setAttribute('accuracy_level', { kind: 'int', value: 0n });
    }
  }
  return model;
}

interface Change {
  readonly from: DataType;
  readonly to: DataType;
}

function changeGraph(graph: Graph, change: Change): void {
  for (const value of graph.initializers) {
    const tensor = value.initializer && changedTensor(value.initializer, change);
    if (tensor) graph.replaceInitializer(value, tensor);
  }
  for (const value of graph.values) {
    const { type } = value;
    if (type?.kind === 'tensor' && type.dtype === change.from) value.type = tensorType(change.to, type.shape);
  }
  for (const node of graph.nodes()) {
    for (const [name, attribute] of [...node.attributes]) {
      const changed = changedAttribute(name, attribute, change);
      if (changed) node.setAttribute(name, changed);
    }
  }
}

/** True when an attribute says `type`. */
function names(type: DataType, name: string, attribute: Attribute): boolean {
  return attribute.kind === 'int' && TYPE_ATTRIBUTES.has(name) && Number(attribute.value) === dataTypeCode(type);
}

function changedAttribute(name: string, attribute: Attribute, change: Change): Attribute | null {
  if (names(change.from, name, attribute)) return { kind: 'int', value: BigInt(dataTypeCode(change.to)) };
  if (attribute.kind === 'tensor') {
    const value = changedTensor(attribute.value, change);
    return value && { kind: 'tensor', value };
  }
  if (attribute.kind !== 'tensors' || attribute.value.every((tensor) => tensor.dtype !== change.from)) return null;
  return { kind: 'tensors', value: attribute.value.map((tensor) => changedTensor(tensor, change) ?? tensor) };
}

/** The tensor in the other type; null when it is of none of ours. Inside or outside of the model file is where it stays. */
function changedTensor({ name, dtype, dims, weight, storage }: Tensor, { from, to }: Change): Tensor | null {
  if (dtype !== from || !weight) return null;
  return new Tensor(name, to, dims, cast(weight, to), storage === 'typed' ? 'raw' : storage);
}
