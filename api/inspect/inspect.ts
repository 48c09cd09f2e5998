/** What a model consists of and what would fuse: the data behind `onnx-fuse inspect`. */
import { type Model, missingFiles, openHeader } from '../../ir/index.js';
import type { Layer, LayerSlot } from '../../passes/analysis/layers/layer.js';
import type { Norm } from '../../passes/analysis/layers/norm.js';
import { planRuns, unfusable } from '../../passes/analysis/plans/ffn-runs.js';
import { DEFAULT_RUN_OPTIONS } from '../../passes/analysis/plans/run-options.js';
import { layersOf } from '../../passes/layers.js';
import { kvBytesPerToken, parameterCount, weightBytes } from '../fuse/figures.js';

/** One layer of a model, and whether it would be fused. */
export interface LayerInspection {
  readonly index: number;
  readonly name: string;
  readonly attention: {
    readonly present: boolean;
    /** The operator, or `decomposed`; null when there is none. */
    readonly kind: string | null;
    readonly kvInputs: readonly string[];
    readonly removable: boolean;
    readonly reason: string | null;
  };
  readonly ffn: {
    readonly present: boolean;
    /** `SwiGLU` and the like, else `gated` or `plain`; null when there is none. */
    readonly kind: string | null;
    /** The element-wise part over the outputs of the input linears, `$0` being the gate. */
    readonly activation: string | null;
    readonly width: number | null;
    readonly norm: string | null;
    /** How its weights are stored: `float16`, `int4 (block 32)`. */
    readonly dtype: string | null;
    /** Whether it can be a member of a run at all. */
    readonly fusable: boolean;
    /** Why it is in no run as the model is; null when it is in one. */
    readonly reason: string | null;
  };
  /** Matrices in the place of an attention or an FFN, in the order of the stream. */
  readonly linears: readonly {
    readonly slot: LayerSlot;
    /** Of two matrices whose product is of low rank; null for a whole one. */
    readonly rank: number | null;
    readonly norm: string | null;
    readonly bias: boolean;
    readonly dtype: string;
  }[];
  /** Everything else that the layer adds to the stream: experts, cross attention, state space, what is not recognised. */
  readonly others: readonly { readonly kind: string; readonly mixesTokens: boolean; readonly reason: string }[];
}

/** A model, layer by layer. */
export interface Inspection {
  readonly model: {
    readonly file: string;
    readonly producer: string;
    readonly irVersion: number;
    readonly opsets: Readonly<Record<string, number>>;
    readonly nodes: number;
    readonly inputs: number;
    readonly outputs: number;
    readonly parameters: number;
    readonly weightBytes: number;
    /** Null when the shapes of the caches are not known without running the model. */
    readonly kvBytesPerToken: number | null;
    readonly hidden: number | null;
    /** Data files that are not there; what they would hold was not looked at. */
    readonly missing: readonly string[];
    /** Why no layers were found; null when some were. */
    readonly reason: string | null;
    /** Why layers are numbered by position although there are numbers in their names; null when they are not. */
    readonly doubt: string | null;
  };
  readonly layers: readonly LayerInspection[];
  /** Runs that `onnx-fuse in out` would fuse in the model as it is. */
  readonly runs: readonly {
    readonly layers: readonly string[];
    readonly widths: readonly number[];
    readonly fusedWidth: number;
  }[];
}

/** Activations that have a name in the field. Everything else is shown as its expression. */
const KNOWN_ACTIVATIONS: ReadonlyMap<string, string> = new Map(
  Object.entries<string>({
    'Mul(Sigmoid($0),$0,$1)': 'SwiGLU',
    'Mul(Sigmoid($0),$0)': 'SiLU',
    'Relu($0)': 'ReLU',
    'Mul(Relu($0),Relu($0))': 'squared ReLU',
  }),
);

/** Describes a file; its external data files may be absent. */
export function inspectFile(file: string): Inspection {
  return inspectModel(openHeader(file), file);
}

/** Describes a model; `file` is only shown. */
export function inspectModel(model: Model, file: string): Inspection {
  const blocks = layersOf(model);
  const plan = planRuns(blocks, DEFAULT_RUN_OPTIONS);
  const reasons = new Map(plan.left.map(({ layer, reason }) => [layer, reason]));
  const ffn = blocks.layers.find((layer) => layer.ffn)?.ffn?.ffn;
  return {
    model: {
      file,
      producer: [model.producerName, model.producerVersion].filter(Boolean).join(' ') || 'unknown',
      irVersion: model.irVersion,
      opsets: Object.fromEntries(model.opsets.map(({ domain, version }) => [domain || 'ai.onnx', version])),
      nodes: model.graph.nodeCount,
      missing: missingFiles(model),
      inputs: model.graph.inputs.length,
      outputs: model.graph.outputs.length,
      parameters: parameterCount(model),
      weightBytes: weightBytes(model),
      kvBytesPerToken: kvBytesPerToken(model),
      hidden: ffn?.hidden ?? null,
      reason: blocks.reason,
      doubt: blocks.doubt,
    },
    layers: blocks.layers.map((layer) => inspectLayer(layer, reasons.get(layer) ?? null)),
    runs: plan.runs.map(({ members, fusedWidth }) => ({
      layers: members.map(({ layer }) => layer.label),
      widths: members.map(({ branch }) => branch.ffn.width),
      fusedWidth,
    })),
  };
}

function inspectLayer(layer: Layer, reason: string | null): LayerInspection {
  const attention = layer.attention?.attention;
  const ffn = layer.ffn?.ffn;
  const others = layer.others.filter((branch) => !branch.mixesTokens);
  return {
    index: layer.index,
    name: layer.name,
    attention: {
      present: attention !== undefined,
      kind: attention?.kind ?? null,
      kvInputs: attention?.kvInputs.map((value) => value.name) ?? [],
      removable: attention !== undefined && attention.blocked === null && layer.fixed === null,
      reason: attention ? (attention.blocked ?? layer.fixed) : layer.unread,
    },
    ffn: {
      present: ffn !== undefined || others.length > 0,
      kind: ffn
        ? (KNOWN_ACTIVATIONS.get(ffn.activation) ?? (ffn.linears.length > 1 ? 'gated' : 'plain'))
        : others.length > 0
          ? 'other'
          : null,
      activation: ffn?.activation ?? null,
      width: ffn?.width ?? null,
      norm: ffn ? normText(ffn.norm) : null,
      dtype: ffn?.down.matrix.storedAs ?? null,
      fusable: unfusable(layer) === null,
      reason,
    },
    linears: layer.linears.map(({ slot, norm, bias, linear, right }) => ({
      slot,
      rank: right?.inWidth ?? null,
      norm: normText(norm),
      bias: bias !== null,
      dtype: linear.matrix.storedAs,
    })),
    others: layer.others.map(({ recognised, mixesTokens, reason: why }) => ({
      kind: recognised ?? 'other',
      mixesTokens,
      reason: why,
    })),
  };
}

function normText({ kind, form }: Norm): string | null {
  return kind === 'none' ? null : `${kind === 'rms' ? 'RMSNorm' : 'LayerNorm'} (${form})`;
}
