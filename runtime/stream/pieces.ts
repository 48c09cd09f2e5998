/**
 * A decoder in pieces along its residual stream, each a model of its own over the weights in the user's files:
 *
 *     prologue   token ids -> stream
 *     branch     (what it reads, what it is added to) -> their sum        one piece for each attention, FFN or other branch
 *     passage    stream -> stream                                        what happens to the whole stream (a scale, a norm)
 *     epilogue   stream -> next-token scores
 *
 * So a plan is a walk: a branch that is removed is not run, FFNs of a run are given one input, a map stands where a branch
 * stood, and nothing in front of the first change is computed again. Masks and rotary tables do not depend on the stream;
 * each piece computes its own from the graph inputs.
 */
import { dirname } from 'node:path';
import type { Graph, Model, Value } from '../../ir/core.js';
import { openModel, openModelBytes, referenceBytes } from '../../ir/index.js';
import { type DataType, tensorType } from '../../ir/type.js';
import { findBlocks, isReshape } from '../../passes/analysis/layers/blocks.js';
import { findResidualStream } from '../../passes/analysis/layers/find-stream.js';
import { type Branch, branchesOf } from '../../passes/analysis/layers/layer.js';
import { inputOf } from '../../passes/analysis/layers/linear-branch.js';
import { biasOperand, branchesInto, isSkipNorm, valueAt } from '../../passes/analysis/layers/residual-stream.js';
import { Refusal } from '../../passes/analysis/refusal.js';
import { parsePipeline, plainDecoder, Rewriter, registry, runPipeline } from '../../passes/index.js';
import { checkClaim } from '../run/room.js';
import { runtimeErrors } from '../session/errors.js';
import { weightBytes } from '../session/memory.js';
import type { SizedLocation } from '../session/sessions.js';
import { readSignature, type Signature } from '../signature/signature.js';
import { Formula } from './formula.js';

/** Names of the inputs and outputs that pieces have besides the model's own. */
export const PIECE = {
  /** What a branch reads. */
  reads: 'onnx_fuse.reads',
  /** What its result is added to. */
  base: 'onnx_fuse.base',
  result: 'onnx_fuse.result',
  /** The norm of what a branch reads. */
  normed: 'onnx_fuse.normed',
  weight: 'onnx_fuse.map.weight',
  bias: 'onnx_fuse.map.bias',
} as const;

/** A branch of the stream, by its original layer. */
export interface BranchPiece {
  readonly kind: 'branch';
  readonly layer: number;
  /** What removal takes it for; null for what only goes with its whole block: a linear, another mixer of tokens. */
  readonly part: 'attention' | 'ffn' | null;
  /**
   * Names of the values it starts from and ends in, and of what its projections read, the norm in front of it as a rule;
   * null where that was not found.
   */
  readonly start: string;
  readonly term: string;
  readonly normed: string | null;
  readonly normedType: DataType;
  readonly startType: DataType;
  readonly endType: DataType;
  /** Branches of one sum read one value. */
  readonly sum: number;
}

export interface PassagePiece {
  readonly kind: 'passage';
  readonly start: string;
  readonly end: string;
  readonly startType: DataType;
}

export type StreamPiece = BranchPiece | PassagePiece;

/** A decoder that can be run in pieces. */
export interface PieceModel {
  readonly signature: Signature;
  /** Version of the default operator set. */
  readonly opset: number;
  readonly pieces: readonly StreamPiece[];
  /** Width of the stream. */
  readonly hidden: number;
  readonly streamType: DataType;
  prologue(): SizedLocation;
  /** (reads, base) -> base + branch(reads). */
  branch(piece: BranchPiece): SizedLocation;
  passage(piece: PassagePiece): SizedLocation;
  /** reads -> norm(reads). */
  norm(piece: BranchPiece): SizedLocation;
  /** (reads, base, weight [hidden, hidden], bias [hidden]) -> base + norm(reads) weight + bias. */
  map(piece: BranchPiece): SizedLocation;
  /** The model from the end of the stream to the scores; `extend` adds to it what is computed from them. */
  epilogue(extend?: (graph: Graph, logits: Value) => void): SizedLocation;
}

/**
 * Cuts the model at `path`. Nothing is written.
 * @throws Diagnostic OF_CANNOT_INSTRUMENT where it has no residual stream from the token embedding to the scores.
 */
export function cutPieces(path: string): PieceModel {
  const folder = dirname(path);
  const model = plainDecoder(openModel(path), 'prompt');
  const signature = readSignature(model);
  checkClaim(signature, path);
  runPipeline(model, parsePipeline('inline-functions', registry));
  splitSkipNorms(model.graph);
  const found = describe(model, path);
  if (found.end !== null && signature.logits === null) {
    throw runtimeErrors.notComparable('logits', 'the model gives no next-token scores');
  }
  const bytes = referenceBytes(model, folder);
  const cut = (work: (cutter: Cutter) => void): SizedLocation => {
    const own = openModelBytes(bytes, folder);
    work(new Cutter(own, found.points));
    return { bytes: referenceBytes(own, folder), folder, weightBytes: weightBytes(own) };
  };
  return {
    signature,
    opset: model.opset('') ?? 17,
    pieces: found.pieces,
    hidden: found.hidden,
    streamType: found.startType,
    prologue: () => cut((cutter) => cutter.finish(PIECE.result, cutter.value(found.start))),
    branch: (piece) =>
      cut((cutter) => {
        cutter.take(piece.start, piece.startType);
        const base = cutter.base(piece);
        cutter.finish(PIECE.result, cutter.node('Add', [base, cutter.value(piece.term)], piece.endType));
      }),
    passage: (piece) =>
      cut((cutter) => {
        cutter.take(piece.start, piece.startType);
        cutter.finish(PIECE.result, cutter.value(piece.end));
      }),
    norm: (piece) =>
      cut((cutter) => {
        cutter.take(piece.start, piece.startType);
        cutter.finish(PIECE.normed, cutter.normed(piece));
      }),
    map: (piece) =>
      cut((cutter) => {
        cutter.take(piece.start, piece.startType);
        const type = piece.normedType;
        const weight = cutter.graph.addInput(PIECE.weight, tensorType(type, [found.hidden, found.hidden]));
        const bias = cutter.graph.addInput(PIECE.bias, tensorType(type, [found.hidden]));
        const product = cutter.node('MatMul', [cutter.normed(piece), weight], type);
        const term = cutter.converted(cutter.node('Add', [product, bias], type), type, piece.endType);
        cutter.finish(PIECE.result, cutter.node('Add', [cutter.base(piece), term], piece.endType));
      }),
    epilogue: (extend) =>
      cut((cutter) => {
        cutter.take(found.end as string, found.endType);
        const logits = cutter.value(signature.logits as string);
        if (extend) extend(cutter.graph, logits);
        else cutter.finish(PIECE.result, logits);
      }),
  };
}

interface Description {
  readonly pieces: readonly StreamPiece[];
  readonly hidden: number;
  readonly start: string;
  readonly startType: DataType;
  readonly end: string;
  readonly endType: DataType;
  /** All points of the stream that have its shape, in order. */
  readonly points: readonly string[];
}

function describe(model: Model, path: string): Description {
  const fail = (why: string) => runtimeErrors.cannotInstrument(path, why);
  const blocks = findBlocks(model.graph);
  if (blocks.reason) throw fail(blocks.reason);
  const { stream } = blocks;
  const owners = new Map<Value, { branch: Branch; layer: number }>();
  for (const layer of blocks.layers) {
    for (const branch of branchesOf(layer)) owners.set(branch.output, { branch, layer: layer.index });
  }
  const typeOf = (value: Value): DataType => stream.types.get(value) ?? value.dtype ?? 'float';
  const first = stream.stages.findIndex((stage) => stage.isResidual);
  const last = stream.stages.length - 1 - [...stream.stages].reverse().findIndex((stage) => stage.isResidual);
  const [start, end] = [stream.stages[first]?.start, stream.stages[last]?.end].map((point) => point && valueAt(point));
  if (!start || !end) throw fail('where its residual stream starts or ends is no value of the graph');
  const pieces: StreamPiece[] = [];
  const points: string[] = [];
  let hidden = 0;
  for (const stage of stream.stages.slice(first, last + 1)) {
    const [from, to] = [valueAt(stage.start), valueAt(stage.end)];
    if (!from || !to) throw fail('a point of its residual stream is no value of the graph');
    if (!isReshape(stage)) points.push(from.name);
    if (!stage.isResidual) {
      pieces.push({ kind: 'passage', start: from.name, end: to.name, startType: typeOf(from) });
      continue;
    }
    for (const output of stage.branches) {
      const owner = owners.get(output);
      if (!owner) throw fail(`'${output.name}' is added to the residual stream and belongs to no layer`);
      const { branch, layer } = owner;
      const input = inputOf(branch.nodes, stage, stream);
      const read = input instanceof Refusal ? null : input.value;
      if (!(input instanceof Refusal)) hidden ||= input.width;
      pieces.push({
        kind: 'branch',
        layer,
        part: partOf(branch),
        start: from.name,
        term: output.name,
        normed: read?.name ?? null,
        normedType: typeOf(read ?? from),
        startType: typeOf(from),
        endType: typeOf(to),
        sum: stage.index,
      });
    }
  }
  return {
    pieces,
    hidden,
    start: start.name,
    startType: typeOf(start),
    end: end.name,
    endType: typeOf(end),
    points,
  };
}

/** What removal takes a branch for. */
function partOf(branch: Branch): BranchPiece['part'] {
  if (branch.role === 'attention' || branch.role === 'ffn') return branch.role;
  return branch.role === 'other' && !branch.mixesTokens ? 'ffn' : null;
}

/** Makes plain sums and norms of all skip norms, so that every point of the stream is a value. */
function splitSkipNorms(graph: Graph): void {
  const rewriter = new Rewriter(graph);
  const stream = findResidualStream(graph);
  for (const skip of [...graph.nodes()].filter(isSkipNorm)) {
    const branches = branchesInto(stream, skip);
    const operands = [skip.input(0), skip.input(1)] as [Value, Value];
    const [branch, root] = branches.includes(operands[0]) ? operands : [operands[1], operands[0]];
    const bias = skip.input(biasOperand(skip));
    const add = (name: string, inputs: readonly Value[], like: Value): Value =>
      graph
        .addNode({ opType: 'Add', inputs, outputs: [{ name, type: like.type }] }, { before: skip })
        .output(0) as Value;
    const term = bias ? add(`${branch.name}.biased`, [branch, bias], branch) : branch;
    const sum = add(`${skip.output(3)?.name ?? branch.name}.sum`, [root, term], root);
    const old = skip.output(3);
    if (old) rewriter.replaceValue(old, sum);
    const normed = skip.output(0);
    if (normed && !normed.isUnused) rewriter.replaceValue(normed, rewriter.addPlainNorm(skip, sum));
    rewriter.eraseIfDead(skip);
  }
}

/** Cuts one piece out of a model of its own. */
class Cutter extends Formula {
  #given: Value | null = null;
  #start = '';

  constructor(
    model: Model,
    readonly points: readonly string[],
  ) {
    super(model.graph);
    for (const value of [...this.graph.outputs]) this.graph.removeOutput(value);
  }

  value(name: string): Value {
    return this.#given !== null && name === this.#start ? this.#given : (this.graph.value(name) as Value);
  }

  /**
   * The stream at `start` becomes an input. Where the shape of an earlier point is asked for, this one has the same.
   */
  take(start: string, dtype: DataType): void {
    const given = this.input(PIECE.reads, dtype);
    const until = this.points.indexOf(start);
    for (const name of [...this.points.slice(0, Math.max(0, until)), start]) {
      const value = this.graph.value(name);
      if (value) this.graph.replaceUses(value, given);
    }
    this.#given = given;
    this.#start = start;
  }

  base({ startType, endType }: BranchPiece): Value {
    return this.converted(this.input(PIECE.base, startType), startType, endType);
  }

  normed(piece: BranchPiece): Value {
    return this.value(piece.normed ?? piece.start);
  }

  converted(value: Value, from: DataType, to: DataType): Value {
    return from === to ? value : this.cast(value, to);
  }

  /** Makes `value` the output `name` and drops what is not needed for it. */
  finish(name: string, value: Value): void {
    this.give(name, value, value.dtype ?? 'float');
    dropDead(this.graph);
  }
}

/** Drops nodes, initializers and inputs that no output needs. */
export function dropDead(graph: Graph): void {
  const rewriter = new Rewriter(graph);
  for (const node of [...graph.nodes()].reverse()) rewriter.eraseIfDead(node);
  for (const value of [...graph.initializers]) rewriter.dropIfUnused(value);
  for (const value of [...graph.inputs]) if (value.isUnused && !value.isGraphOutput) graph.removeInput(value);
}
