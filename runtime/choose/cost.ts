/**
 * What a token costs: the bytes of weights over the bandwidth, plus a cost for each attention, each FFN and each linear map on the
 * residual stream (kernel launches, caches and, in tensor parallel, all-reduces), plus what every token costs besides. method.md,
 * section 3; a prediction, never a measurement. It ranks plans; `bench` measures them.
 */
import type { Model, Node } from '../../ir/core.js';
import { errors } from '../../ir/diagnostic.js';
import { type Branch, branchesOf, slotOf } from '../../passes/analysis/layers/layer.js';
import { layersOf, plainDecoder } from '../../passes/layers.js';
import { tensorsOf } from '../session/memory.js';

/** What a token costs, or a whole prompt. */
export interface PhaseCosts {
  /** Bytes of weights, of each rank. */
  readonly bytesPerSecond: number;
  /** What each attention costs beyond its weights: at the context and batch that it was measured with. */
  readonly secondsPerAttention: number;
  /** The same of an FFN, also one that others were fused into, and of a branch that is neither. */
  readonly secondsPerFfn: number;
  /** The same of a linear map in the place of a branch. */
  readonly secondsPerLinear: number;
  /** What every token costs besides, beyond the weights: the head, sampling, the runtime itself. Below 0 where the head reads faster. */
  readonly secondsPerToken: number;
}

/** Where the tokens are computed, and what one costs there. */
export interface Device extends PhaseCosts {
  readonly name: string;
  /** Where the constants come from. */
  readonly source: string;
  readonly ranks: number;
  /** The same constants of a prompt of PROMPT_TOKENS, which takes the place of a token; absent where they were not measured. */
  readonly prompt?: PhaseCosts;
  /** What fusing FFNs was measured to save here; null where that was not measured. */
  readonly fusion: FusionGain | null;
  /** Why the constants should not be believed, in a sentence; null when nothing speaks against them. */
  readonly disturbed: string | null;
}

/** Tokens of the prompt whose costs are measured. */
export const PROMPT_TOKENS = 128;

/** What a plan is to make fast: tokens, prompts, or tokens as long as fusing makes prompts no slower. */
export type SpeedGoal = 'decode' | 'prompt' | 'both';

/** The device with the costs that count for a goal. Throws OF_USAGE where those of a prompt were not measured. */
export function costsFor(goal: SpeedGoal, device: Device): Device {
  if (goal !== 'prompt') return device;
  if (device.prompt) return { ...device, ...device.prompt };
  const remedy = 'measure a device with option prompts, leave option device out, or optimize for decode';
  throw errors.usage('option device', `it does not say what a prompt costs on ${device.name}`, remedy);
}

/** Seconds that an FFN saves that becomes part of a wider one: below 0 where that is slower, 0 where it is less than the noise. */
export interface FusionGain {
  /** Of one token. */
  readonly token: number;
  /** Of a prompt of PROMPT_TOKENS. */
  readonly prompt: number;
}

/** What one token of one sequence needs. */
export interface TokenWork {
  /** Bytes of weights that are read: a table in which rows are looked up is not. */
  readonly weightBytes: number;
  /** Branches on the residual stream. What is neither attention nor linear map counts as an FFN. */
  readonly attentions: number;
  readonly ffns: number;
  readonly linears: number;
}

/** Predicted latency of a decoded token at the batch and context of the device's constants, in seconds; with `costsFor`, of a prompt. */
export function predictSecondsPerToken({ weightBytes, attentions, ffns, linears }: TokenWork, device: Device): number {
  return (
    weightBytes / (device.bytesPerSecond * device.ranks) +
    attentions * device.secondsPerAttention +
    ffns * device.secondsPerFfn +
    linears * device.secondsPerLinear +
    device.secondsPerToken
  );
}

/** Reads the work off a model. An FFN that others were fused into is one FFN. */
export function workOf(given: Model): TokenWork {
  const model = plainDecoder(given, 'token');
  const isRead = readKeys(model);
  const seen = new Set<string>();
  let weightBytes = 0;
  for (const { weight } of tensorsOf(model)) {
    if (!weight || seen.has(weight.key)) continue;
    seen.add(weight.key);
    if (isRead(weight.key)) weightBytes += weight.byteLength;
  }
  const branches = new Map(
    layersOf(model)
      .layers.flatMap(branchesOf)
      .map((branch) => [branch.output, branch]),
  );
  const counts = { attentions: 0, ffns: 0, linears: 0 };
  for (const branch of branches.values()) counts[KINDS[branch.role]]++;
  return { weightBytes, ...counts };
}

const KINDS = { attention: 'attentions', ffn: 'ffns', linear: 'linears', other: 'ffns' } as const satisfies Record<
  Branch['role'],
  string
>;

/** A branch, and the weights that go with it. */
export interface BranchWork {
  /** Number in the original model. */
  readonly layer: number;
  /** The slot of the layer that it takes. */
  readonly part: 'attention' | 'ffn';
  readonly role: Branch['role'];
  /** Bytes of weights that this branch alone reads for a token: what two branches share is counted for neither. */
  readonly weightBytes: number;
}

/** The branches of a model in the order of the stream, each with what is read no more when it goes. */
export function partsOf(given: Model): BranchWork[] {
  const model = plainDecoder(given, 'token');
  const isRead = readKeys(model);
  const readers = readersOf(model);
  return layersOf(model).layers.flatMap((layer) =>
    branchesOf(layer).map((branch) => {
      const own = withOperands(branch.nodes);
      let weightBytes = 0;
      for (const [key, { nodes, byteLength }] of readers) {
        if (nodes.every((node) => own.has(node)) && isRead(key)) weightBytes += byteLength;
      }
      return { layer: layer.index, part: slotOf(branch), role: branch.role, weightBytes };
    }),
  );
}

/**
 * Bytes of a linear map `n(x) W + b` of a stream of this width: factors of the norm, matrix and bias. Where W is of low rank, it is
 * the two matrices [hidden, rank] and [rank, hidden]; what a map costs beyond its bytes is measured on whole ones.
 */
export function linearBytes(hidden: number, bytesPerElement: number, rank: number | null = null): number {
  return bytesPerElement * hidden * ((rank === null ? hidden : 2 * rank) + 2);
}

/** Which weights are read whole: by key and not by name, since a tied table is looked up under one and multiplied with under another. */
function readKeys(model: Model): (key: string) => boolean {
  const isRead = new Map<string, boolean>();
  for (const { initializer, uses } of model.graph.initializers) {
    const key = initializer?.weight?.key;
    const isLookedUp = uses.length > 0 && uses.every(({ node, index }) => /^Gather/.test(node.opType) && index === 0);
    if (key !== undefined) isRead.set(key, isRead.get(key) === true || !isLookedUp);
  }
  return (key) => isRead.get(key) !== false;
}

/** The nodes that read each weight of the main graph, under whatever names. */
function readersOf({ graph }: Model): Map<string, { nodes: Node[]; byteLength: number }> {
  const readers = new Map<string, { nodes: Node[]; byteLength: number }>();
  const add = (weight: { key: string; byteLength: number } | null | undefined, nodes: readonly Node[]): void => {
    if (!weight || nodes.length === 0) return;
    const found = readers.get(weight.key) ?? { nodes: [], byteLength: weight.byteLength };
    readers.set(weight.key, found);
    found.nodes.push(...nodes);
  };
  for (const { initializer, uses } of graph.initializers) {
    add(
      initializer?.weight,
      uses.map(({ node }) => node),
    );
  }
  for (const node of graph.nodes()) {
    for (const attribute of node.attributes.values())
      if (attribute.kind === 'tensor') add(attribute.value.weight, [node]);
  }
  return readers;
}

/** The nodes of a branch, and those that only prepare its operands: a cast or a transposition of a weight. */
function withOperands(nodes: ReadonlySet<Node>): Set<Node> {
  const own = new Set(nodes);
  const open = [...nodes];
  for (let node = open.pop(); node; node = open.pop()) {
    for (const value of node.inputs) {
      const producer = value?.producer;
      if (!producer || own.has(producer)) continue;
      const isOwn = producer.outputs.every(
        (output) => !output || (!output.isGraphOutput && output.uses.every((use) => own.has(use.node))),
      );
      if (!isOwn) continue;
      own.add(producer);
      open.push(producer);
    }
  }
  return own;
}

const H100_BYTES_PER_SECOND = 3.35e12;

/**
 * FFN Fusion (arXiv 2503.18908), TP 8 on 8 H100, one user: tokens per second, parameters and sub-blocks before and after the
 * fusion, and of the parent. One byte a parameter: the paper runs FP8 (at two bytes, reading the weights alone would take
 * longer than the token took).
 */
export const PUBLISHED = {
  parent: { tokensPerSecond: 41.44, parameters: 405.85e9, subBlocks: 252 },
  beforeFusion: { tokensPerSecond: 63.38, parameters: 253.4e9, subBlocks: 190 },
  fused: { tokensPerSecond: 70.92, parameters: 253.4e9, subBlocks: 145 },
} as const;

/** The cost per sub-block that explains a published row. */
function fitted(ranks: number, bytesPerSecond: number): number {
  const { tokensPerSecond, parameters, subBlocks } = PUBLISHED.beforeFusion;
  return (1 / tokensPerSecond - parameters / (ranks * bytesPerSecond)) / subBlocks;
}

const NAMED: ReadonlyMap<string, () => Device> = new Map(
  Object.entries<() => Device>({
    h100x8: () => ({
      name: 'h100x8',
      source:
        '3.35 TB/s a GPU; one cost for attentions, FFNs and linear maps, which the paper cannot tell apart, fitted on the pre-fusion row of arXiv 2503.18908 (63.38 tokens/s)',
      ranks: 8,
      bytesPerSecond: H100_BYTES_PER_SECOND,
      ...alike(fitted(8, H100_BYTES_PER_SECOND)),
      secondsPerToken: 0,
      fusion: null,
      disturbed: null,
    }),
  }),
);

/** One cost for whatever is on the stream. */
function alike(seconds: number): Pick<Device, 'secondsPerAttention' | 'secondsPerFfn' | 'secondsPerLinear'> {
  return { secondsPerAttention: seconds, secondsPerFfn: seconds, secondsPerLinear: seconds };
}

/** Names that `namedDevice` knows. */
export const DEVICE_NAMES: readonly string[] = [...NAMED.keys()];

/** A device by name. Throws OF_USAGE. */
export function namedDevice(name: string): Device {
  const make = NAMED.get(name);
  if (!make)
    throw errors.usage(
      'option device',
      `there is no device '${name}'`,
      `choose of ${DEVICE_NAMES.join(', ')}, or give a file`,
    );
  return make();
}

/**
 * Reads a device from JSON: `{ name?, source?, ranks, bytesPerSecond, secondsPerAttention, secondsPerFfn, secondsPerLinear,
 * secondsPerToken?, prompt?, fusion?: { token, prompt }, disturbed? }`, or one `secondsPerSubBlock` for the three. Throws OF_USAGE.
 */
export function parseDevice(text: string, place: string): Device {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    const keys = ['name', 'ranks', 'bytesPerSecond', ...BRANCH_KEYS].map((key) => `"${key}"`);
    throw errors.usage(place, 'it is no JSON', `write { ${keys.join(', ')} }`);
  }
  const fields = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const word = (key: string): string | null => (typeof fields[key] === 'string' ? fields[key] : null);
  const prompt = fields['prompt'] as Record<string, unknown> | null | undefined;
  return {
    name: word('name') ?? place,
    source: word('source') ?? place,
    ranks: numberIn(fields, 'ranks', 1, place),
    ...phaseCosts(fields, place),
    ...(prompt === null || prompt === undefined ? {} : { prompt: phaseCosts(prompt, `${place}, prompt`) }),
    fusion: fusionOf(fields['fusion'], place),
    disturbed: word('disturbed'),
  };
}

function phaseCosts(fields: Readonly<Record<string, unknown>>, place: string): PhaseCosts {
  const number = (key: string, least: number): number => numberIn(fields, key, least, place);
  const isOld = 'secondsPerSubBlock' in Object(fields) && !BRANCH_KEYS.some((key) => key in fields);
  return {
    bytesPerSecond: number('bytesPerSecond', 1),
    ...(isOld
      ? alike(number('secondsPerSubBlock', 0))
      : {
          secondsPerAttention: number('secondsPerAttention', 0),
          secondsPerFfn: number('secondsPerFfn', 0),
          secondsPerLinear: number('secondsPerLinear', 0),
        }),
    secondsPerToken: 'secondsPerToken' in Object(fields) ? number('secondsPerToken', Number.NEGATIVE_INFINITY) : 0,
  };
}

function numberIn(fields: Readonly<Record<string, unknown>>, key: string, least: number, place: string): number {
  const found = fields[key];
  if (typeof found === 'number' && Number.isFinite(found) && found >= least) return found;
  const wanted = least === Number.NEGATIVE_INFINITY ? 'a number' : `a number of at least ${least}`;
  throw errors.usage(place, `'${key}' is ${JSON.stringify(found)}`, `write ${wanted}`);
}

function fusionOf(value: unknown, place: string): FusionGain | null {
  if (value === undefined || value === null) return null;
  const { token, prompt } = (typeof value === 'object' ? value : {}) as Partial<Record<keyof FusionGain, unknown>>;
  if (typeof token === 'number' && Number.isFinite(token) && typeof prompt === 'number' && Number.isFinite(prompt)) {
    return { token, prompt };
  }
  throw errors.usage(
    place,
    `'fusion' is ${JSON.stringify(value)}`,
    'write { "token": seconds, "prompt": seconds }, or leave it out',
  );
}

const BRANCH_KEYS = ['secondsPerAttention', 'secondsPerFfn', 'secondsPerLinear'];
