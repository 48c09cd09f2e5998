/** What passes do to a graph beyond single edges. Match completely first, then mutate through these. */
import { type Attribute, type Graph, type Node, type ResultSpec, Tensor, type Use, type Value } from '../../ir/core.js';
import { withWidth } from '../../ir/type.js';
import { nodeOf } from '../../ir/walk.js';
import type { Weight } from '../../ir/weight.js';
import { biasOperand, capturesOf, isSkipNorm, privateOrigin, sumOperands } from '../analysis/layers/residual-stream.js';
import { biasOperandOf, type Linear } from '../analysis/matrices/linear.js';
import { setToOne } from '../analysis/matrices/matrix.js';
import type { Matrix } from '../analysis/matrices/stored-matrices.js';
import { withRank } from '../analysis/matrices/vectors.js';
import { constantOf, sizesWeight } from '../analysis/values/constants.js';
import { type ElementTypes, inferElementTypes } from '../analysis/values/element-types.js';

/** Changes a graph: nodes are made with fresh names, and what nothing reads afterwards goes. */
export class Rewriter {
  erasedNodes = 0;
  erasedInitializers = 0;
  #types: ElementTypes | null = null;

  constructor(readonly graph: Graph) {}

  /** As they were when first asked for: a Cast made since then is not seen through, which costs nothing but a node. */
  #elementTypes(): ElementTypes {
    this.#types ??= inferElementTypes(this.graph);
    return this.#types;
  }

  /** Removes `node` if no result of it is used, then whatever fed only it. Graph inputs stay. */
  eraseIfDead(node: Node): void {
    const open = [node];
    for (let at = open.pop(); at; at = open.pop()) {
      if (at.isRemoved) continue;
      if (at.outputs.some((value) => value && !value.isUnused)) continue;
      const feeders = new Set(at.inputs.filter((value) => value !== null));
      for (const graph of at.subgraphs) for (const value of capturesOf(graph)) feeders.add(value);
      at.graph.removeNode(at);
      this.erasedNodes++;
      for (const value of feeders) {
        if (value.producer) open.push(value.producer);
        else this.#dropUnread(value);
      }
    }
  }

  /** Drops what lost its last reader here: an initializer, and the graph input of the same name that it was a default of. */
  #dropUnread(value: Value): void {
    if (value.initializer && value.isInput && value.isUnused) this.removeInput(value);
    else this.dropIfUnused(value);
  }

  /** Removes a graph input that nothing reads any more; one that is an initializer, too, went with its last reader. */
  removeInput(value: Value): void {
    if (!value.isInput) return;
    value.graph.removeInput(value);
    this.dropIfUnused(value);
  }

  /** Removes an initializer that nothing reads any more, unless it is also a graph input. */
  dropIfUnused(value: Value): void {
    if (!value.initializer || value.isInput || !value.isUnused || value.isSparse) return;
    value.graph.removeInitializer(value);
    this.erasedInitializers++;
  }

  /** Erases the producer of `value`, if any, when it is dead. */
  eraseProducer(value: Value | null): void {
    if (!value) return;
    if (value.producer) this.eraseIfDead(value.producer);
    else this.#dropUnread(value);
  }

  /**
   * Adds an initializer under a name made from `wish`, to the main graph: both branches of a merged decoder share it, and
   * one that is there already under this name is used again.
   */
  addWeight(wish: string, weight: Weight): Value {
    const { root } = this.graph;
    const known = root.value(wish);
    if (known?.constant?.weight === weight && this.graph !== root) return known;
    const name = root.names.fresh(wish);
    return root.addInitializer(name, new Tensor(name, weight.dtype, weight.dims, weight));
  }

  /** Makes operand `index` of `node` read `value` and erases what only fed the old operand. */
  replaceOperand(node: Node, index: number, value: Value): void {
    const old = node.input(index);
    node.setInput(index, value);
    this.eraseProducer(old);
  }

  /** All readers of `from` read `to` instead; where `from` is a graph output, `to` takes its place and name. */
  replaceValue(from: Value, to: Value): void {
    if (from.isGraphOutput) this.graph.takeOver(from, to);
    else this.graph.replaceUses(from, to);
  }

  /** The first of `nodes` in the graph's order; of one in a graph inside, the node that holds it. */
  earliest(nodes: readonly Node[]): Node {
    if (nodes.length === 0) throw new RangeError('the earliest of no nodes');
    return nodes.map((node) => nodeOf(this.graph, node)).reduce((first, node) => (node.isBefore(first) ? node : first));
  }

  /**
   * Makes a linear layer multiply by `matrix` and add `bias` ([out]; null leaves the one of the operator, if any). It keeps
   * its node where that can hold both; a flattened or packed one is replaced by a product of its own. Returns the layer's
   * result, with the operator's activation where it has one.
   */
  installLinear(linear: Linear, matrix: Matrix, bias: Weight | null, name: string): Value {
    const { node, isPlain, activation, output } = linear;
    const index = linear.bias?.index ?? (node.opType === 'MatMulNBits' ? null : biasOperandOf(node));
    if (!isPlain || (bias && index === null && activation)) return this.#replaceLinear(linear, matrix, bias, name);
    matrix.install(node, this, `${name}.weight`);
    if (!bias) return output;
    if (index === null) return this.#addBias(output, bias, name);
    setToOne(node, 'beta');
    const operand = this.addWeight(`${name}.bias`, withRank(bias, linear.bias?.weight.dims.length ?? 1) ?? bias);
    this.replaceOperand(node, index, operand);
    return output;
  }

  /** Adds `bias` to a value, for all that read it. */
  #addBias(value: Value, bias: Weight, name: string): Value {
    const readers = value.uses;
    const added = this.graph.addNode(
      {
        opType: 'Add',
        name: `${name}/bias`,
        inputs: [value, this.addWeight(`${name}.bias`, bias)],
        outputs: [{ name: `${name}.biased`, type: value.type }],
      },
      { after: value.producer as Node },
    );
    const result = added.output(0) as Value;
    for (const use of readers) use.node.setInput(use.index, result);
    return result;
  }

  /** A product of its own in the place of a flattened or packed one, or of an operator that cannot take a bias. */
  #replaceLinear(
    { node, reads, output, activation }: Linear,
    matrix: Matrix,
    bias: Weight | null,
    name: string,
  ): Value {
    const isBlocks = matrix.kind === 'nbits';
    const type = withWidth(output.type, matrix.outWidth);
    const made = this.graph.addNode(
      {
        opType: isBlocks ? node.opType : 'MatMul',
        domain: isBlocks ? node.domain : '',
        name: `${name}/MatMul`,
        inputs: [reads.node.input(reads.index)],
        outputs: [{ name, type }],
        attributes: isBlocks ? Object.fromEntries(node.attributes) : {},
      },
      { before: node },
    );
    matrix.install(made, this, `${name}.weight`);
    let result = made.output(0) as Value;
    if (bias) result = this.#addBias(result, bias, name);
    if (activation) {
      const outputs = [{ name: `${name}.activated`, type }];
      const spec = { ...activation, name: `${name}/${activation.opType}`, inputs: [result], outputs };
      result = this.graph.addNode(spec, { after: result.producer as Node }).output(0) as Value;
    }
    this.replaceValue(output, result);
    this.eraseProducer(output);
    return result;
  }

  /** [start, end) of `value` along `axis`, for `reader`. */
  addSlice(reader: Node, value: Value, axis: number, start: number, end: number, name: string, opset: number): Value {
    const [starts, ends, axes] = [start, end, axis].map((number) => [BigInt(number)]) as [bigint[], bigint[], bigint[]];
    const list = (part: string, numbers: bigint[]): Value => this.addWeight(`${name}.${part}`, sizesWeight(numbers));
    // Operands from opset 10 on, attributes before.
    const isOperand = opset >= 10;
    const node = this.graph.addNode(
      {
        opType: 'Slice',
        name,
        inputs: [value, ...(isOperand ? [list('starts', starts), list('ends', ends), list('axes', axes)] : [])],
        outputs: [{ name, type: null }],
        attributes: isOperand
          ? {}
          : Object.fromEntries(
              Object.entries({ starts, ends, axes }).map(([key, ints]) => [
                key,
                { kind: 'ints', value: ints } as const,
              ]),
            ),
      },
      { before: reader },
    );
    return node.output(0) as Value;
  }

  /** Parts of `value`, one after another along `axis`, of the given sizes. Its sizes are called `name.sizes`. */
  addSplit(
    value: Value,
    split: {
      readonly axis: number;
      readonly sizes: readonly number[];
      readonly outputs: readonly ResultSpec[];
      readonly name: string;
      readonly opset: number;
    },
    at: { before: Node } | { after: Node },
  ): readonly Value[] {
    const { axis, sizes, outputs, name, opset } = split;
    // An operand from opset 13 on, an attribute before.
    const isOperand = opset >= 13;
    const attributes: Record<string, Attribute> = { axis: { kind: 'int', value: BigInt(axis) } };
    if (!isOperand) attributes['split'] = { kind: 'ints', value: sizes.map(BigInt) };
    const inputs = isOperand ? [value, this.addWeight(`${name}.sizes`, sizesWeight(sizes))] : [value];
    const node = this.graph.addNode({ opType: 'Split', name: `${name}/Split`, inputs, outputs, attributes }, at);
    return node.outputs as readonly Value[];
  }

  /** Moves `value`'s producer, and everything it needs, in front of `anchor`. */
  hoist(value: Value, anchor: Node): void {
    const needed = new Set<Node>();
    const open = [value.producer];
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      if (!node || node.graph !== this.graph || needed.has(node) || node.isBefore(anchor)) continue;
      if (node === anchor) throw new RangeError(`'${value.name}' depends on the node it should precede`);
      needed.add(node);
      const feeders = [...node.inputs, ...node.subgraphs.flatMap((graph) => [...capturesOf(graph)])];
      for (const feeder of feeders) if (feeder?.producer) open.push(feeder.producer);
    }
    for (const node of [...needed].sort((a, b) => (a.isBefore(b) ? -1 : 1))) {
      this.graph.moveNode(node, anchor);
    }
  }

  /**
   * Takes `term` out of the sum that contains it as a direct operand (Add, Sum, or the sum of a skip norm). `isSum`
   * tells which reader is the sum. The term's own nodes are not erased.
   */
  dropTerm(term: Value, isSum: (node: Node) => boolean): void {
    const { node, index } = useInSum(term, isSum);
    if (isSkipNorm(node)) {
      this.#dropSkipTerm(node, index);
      return;
    }
    const rest = node.inputs.filter((_, i) => i !== index);
    const result = node.output(0) as Value;
    if (rest.length === 1) {
      this.replaceValue(result, rest[0] as Value);
      this.eraseIfDead(node);
      return;
    }
    for (const [i, value] of rest.entries()) node.setInput(i, value);
    node.truncateInputs(rest.length);
  }

  /** Puts what `make` makes, in front of the sum, where `term` was in it; otherwise like `dropTerm`. */
  replaceTerm(term: Value, isSum: (node: Node) => boolean, make: (sum: Node) => Value): void {
    const { node, index } = useInSum(term, isSum);
    const value = make(node);
    if (isSkipNorm(node)) this.#dropSkipBias(node);
    node.setInput(index, value);
  }

  /** Adds a constant `vector` to `term` where the sum takes it up. */
  addToTerm(term: Value, isSum: (node: Node) => boolean, vector: Value, name: string): void {
    const { node, index } = useInSum(term, isSum);
    const spec = { opType: 'Add', name, inputs: [term, vector], outputs: [{ name, type: term.type }] };
    node.setInput(index, this.graph.addNode(spec, { before: node }).output(0));
  }

  /** A bias operand of a skip norm belongs to the projection that is taken out of its sum. */
  #dropSkipBias(node: Node): void {
    const bias = biasOperand(node);
    const old = node.input(bias);
    if (!old) return;
    node.truncateInputs(bias);
    this.eraseProducer(old);
  }

  #dropSkipTerm(node: Node, index: number): void {
    const rest = node.input(1 - index) as Value;
    this.#dropSkipBias(node);
    const inner = privateOrigin(rest, this.#elementTypes());
    const operands = inner?.producer && !isSkipNorm(inner.producer) ? sumOperands(inner) : [];
    if (operands.length === 2) {
      // The sum inside moves up: Skip(Add(a, b), term) becomes Skip(a, b).
      node.setInput(0, operands[0] as Value);
      node.setInput(1, operands[1] as Value);
      this.eraseProducer(rest);
      return;
    }
    const normed = node.output(0);
    if (normed) this.replaceValue(normed, this.addPlainNorm(node, rest));
    const sum = node.output(3);
    if (sum) this.replaceValue(sum, rest);
    this.eraseIfDead(node);
  }

  /** The norm half of a skip norm, reading `input`, placed before the skip norm. Returns its result. */
  addPlainNorm(skip: Node, input: Value): Value {
    const isRms = skip.opType === 'SkipSimplifiedLayerNormalization';
    const attributes: Record<string, Attribute> = {
      axis: { kind: 'int', value: -1n },
      epsilon: { kind: 'float', value: skip.floatAttribute('epsilon') ?? 1e-12 },
    };
    // onnxruntime registers both in the default domain; the simplified form needs to be told its precision.
    if (isRms) attributes['stash_type'] = { kind: 'int', value: 1n };
    const operands = isRms ? [input, skip.input(2)] : [input, skip.input(2), skip.input(3)];
    const result = skip.output(0) as Value;
    const node = this.graph.addNode(
      {
        opType: isRms ? 'SimplifiedLayerNormalization' : 'LayerNormalization',
        name: skip.name,
        inputs: operands,
        outputs: [{ name: result.name, type: result.type }],
        attributes,
      },
      { before: skip },
    );
    return this.#described(node, result);
  }

  /**
   * Splits a skip norm into Add(s) for its sum and a plain norm that reads `normInput` instead of the sum. A bias
   * operand goes with the one of `branches` that is an operand. Afterwards the skip norm is gone.
   */
  splitSkipNorm(skip: Node, normInput: Value, branches: readonly Value[]): void {
    const operands = [skip.input(0) as Value, skip.input(1) as Value] as const;
    const [branch, root] = branches.includes(operands[0]) ? operands : ([operands[1], operands[0]] as const);
    const normed = skip.output(0);
    const sum = skip.output(3);
    if (sum) {
      const bias = skip.input(biasOperand(skip));
      const added = bias ? this.#add(skip, branch, bias, null) : branch;
      this.replaceValue(sum, this.#add(skip, root, added, sum));
    }
    if (normed && !normed.isUnused) this.replaceValue(normed, this.addPlainNorm(skip, normInput));
    this.eraseIfDead(skip);
  }

  /**
   * A skip norm of which only the sum is still read computes its norm for nothing: it takes over a plain norm that reads
   * the sum, the form that runtimes fuse; where there is none it becomes an Add.
   */
  tidySkipNorm(skip: Node, branches: readonly Value[]): void {
    const isNormed = [0, 1, 2].some((i) => skip.output(i)?.isUnused === false);
    if (skip.isRemoved || !isSkipNorm(skip) || isNormed || !skip.input(0) || !skip.input(1)) return;
    if (!this.#adoptNorm(skip)) this.splitSkipNorm(skip, skip.input(0) as Value, branches);
  }

  #adoptNorm(skip: Node): boolean {
    const isRms = skip.opType === 'SkipSimplifiedLayerNormalization';
    const plain = isRms ? 'SimplifiedLayerNormalization' : 'LayerNormalization';
    const [normed, sum] = [skip.output(0), skip.output(3)];
    const norm = sum?.uses.find(({ node, index }) => node.op === plain && index === 0)?.node;
    const result = norm?.output(0);
    const epsilon = norm?.attributes.get('epsilon');
    if (!normed || !norm || !result || !epsilon || result.isGraphOutput) return false;
    if ((norm.intAttribute('axis') ?? -1) !== -1 || norm.outputs.slice(1).some((value) => value !== null)) return false;
    if (norm.graph !== this.graph || (!isRms && !norm.input(2))) return false;
    const operands = norm.inputs.slice(1, isRms ? 2 : 3) as readonly Value[];
    if (operands.some((operand) => !constantOf(operand))) return false;
    for (const [i, operand] of operands.entries()) {
      // Behind an Identity, say, which may stand further down.
      this.hoist(operand, skip);
      this.replaceOperand(skip, i + 2, operand);
    }
    skip.setAttribute('epsilon', epsilon);
    this.replaceValue(result, normed);
    this.eraseIfDead(norm);
    return true;
  }

  #add(before: Node, a: Value, b: Value, like: Value | null): Value {
    const node = this.graph.addNode(
      {
        opType: 'Add',
        name: before.name ? `${before.name}/residual` : '',
        inputs: [a, b],
        outputs: [{ name: like?.name ?? `${a.name}/sum`, type: like?.type ?? null }],
      },
      { before },
    );
    return this.#described(node, like);
  }

  /** New results are listed in value_info where their models were. */
  #described(node: Node, like: Value | null): Value {
    const result = node.output(0) as Value;
    if (like && this.graph.valueInfo.has(like)) this.graph.valueInfo.add(result);
    return result;
  }
}

/** Where the sum reads one of its terms. */
function useInSum(term: Value, isSum: (node: Node) => boolean): Use {
  const use = term.uses.find((candidate) => isSum(candidate.node));
  if (!use) throw new RangeError(`'${term.name}' is no term of a sum`);
  return use;
}
