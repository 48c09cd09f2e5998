/**
 * Puts a fitted linear map in the place of a branch, instead of nothing as removal does:
 *
 *     r' = r + attention(n(r))     becomes     r' = r + n(r) W + b        and an FFN likewise
 *
 * W and b come out of a fit file (removal/fit-file.ts), in the order of channels of what the branch's projections read:
 * the norm in front of them, or the stream itself where a family norms what branches give and not what they read. A map of
 * low rank, W = A B, is two products, n(r) A B + b. Where a map has only b, the sum takes up a constant vector. Caches, and
 * everything else that only the branch needed, go as they do in removal. The map is stored in the element type of what it
 * multiplies, dense also beside quantised weights, unless the file has it in blocks of bits.
 *
 * What it will not find: branches that removal would not take out, branches that read the stream through two norms.
 */

import type { Attribute, Value } from '../../ir/core.js';
import { errors } from '../../ir/diagnostic.js';
import { type DataType, dataTypeCode, elementCount, isScalable } from '../../ir/type.js';
import { counted } from '../../ir/visible.js';
import { cast, type Weight } from '../../ir/weight.js';
import { passErrors } from '../analysis/errors.js';
import type { AttentionBranch, Blocks, Branch, Layer } from '../analysis/layers/layer.js';
import { type BranchInput, inputOf } from '../analysis/layers/linear-branch.js';
import { linearName } from '../analysis/layers/weight-names.js';
import { attempt, Refusal } from '../analysis/refusal.js';
import { ASKED_OPTIONS, isPossible } from '../framework/asked-layers.js';
import { factsAs, layersText } from '../framework/facts.js';
import { layersOption, pathOption } from '../framework/options.js';
import { definePass, type OptionSpec, type PassContext } from '../framework/pass.js';
import { removableAttentions, takeOutAttentions } from '../removal/attention.js';
import type { StandIn } from '../removal/branch.js';
import { removableFfns, takeOutFfns } from '../removal/ffn.js';
import { FitFile, type FittedMap, MAP_BLOCK } from '../removal/fit-file.js';

/** A branch in whose place a map stands. */
export interface Linearized {
  /** Original number. */
  readonly layer: number;
  readonly part: Part;
  /** `bias`: a constant vector alone. */
  readonly map: 'linear' | 'bias';
  /** Of a matrix that is the product of two; null for a whole one, and for a bias. */
  readonly rank: number | null;
  /** Numbers of the map. */
  readonly parameters: number;
  /** Graph inputs and outputs that went. */
  readonly kvInputs: readonly string[];
  readonly kvOutputs: readonly string[];
}

type Part = 'attention' | 'ffn';
const NAMES = { attention: 'attention', ffn: 'FFN' } as const;

export const linearize = definePass({
  id: 'linearize',
  scope: 'decoder',
  summary: 'put fitted linear maps in the place of the attentions and FFNs of chosen layers',
  effect: 'changes-function',
  options: {
    attention: layersOption('layers whose attention becomes a map, original numbers: 4,6-9'),
    ffn: layersOption('layers whose FFN becomes a map'),
    map: pathOption('file of the fitted maps (.onnx-fuse-fit)'),
    ...ASKED_OPTIONS,
  },
  statistics: {
    linears: 'branches that are one matrix now',
    biases: 'branches that are a constant vector now',
    caches: 'KV-cache inputs and outputs removed',
  },
  facts: factsAs<Linearized>({
    describe: (made) => {
      // Linears come before biases.
      const kinds = [...new Set(made.map(kindOf))].sort().reverse();
      return (['attention', 'ffn'] as const).flatMap((part) =>
        kinds.flatMap((kind) => {
          const own = made.filter((each) => each.part === part && kindOf(each) === kind);
          if (own.length === 0) return [];
          const caches = own.flatMap(({ kvInputs }) => kvInputs).length;
          const went = caches > 0 ? `; ${counted(caches, 'KV-cache input')} ${caches === 1 ? 'is' : 'are'} gone` : '';
          return [
            `a ${kind.replace('linear', 'linear map')} replaces the ${NAMES[part]} of ${layersText(own.map(({ layer }) => String(layer)))}${went}`,
          ];
        }),
      );
    },
    // Only one branch of a merged decoder reads caches.
    comparable: ({ layer, part, map }) => `${part} ${layer} ${map}`,
  }),
  run(context) {
    const { options, original, blocks, refused } = context;
    const { attention, ffn, map } = options;
    if (attention.length + ffn.length === 0) return;
    if (map === '')
      throw errors.usage('pass linearize', 'no file of fitted maps is given', 'write map=FILE.onnx-fuse-fit');
    // All checks come before the first change.
    const placer = new Placer(new FitFile(map), context);
    const now = blocks();
    const attentions = removableAttentions(attention, options, now, refused).filter(({ index, attention }) =>
      placer.canPlace('attention', index, attention ? [attention] : [], now),
    );
    const ffns = removableFfns(ffn, options, original, now, refused).filter(({ index, branches }) =>
      placer.canPlace('ffn', index, branches, now),
    );
    const place = (branch: AttentionBranch, { index }: Layer, blocks: Blocks): StandIn =>
      placer.place('attention', index, [branch], blocks);
    for (const { layer, kind, ...caches } of takeOutAttentions(context, attentions, place)) {
      placer.say('attention', layer, caches, ` (${kind})`);
    }
    takeOutFfns(context, ffns, ({ index, branches }, blocks) => placer.place('ffn', index, branches, blocks));
    for (const { index } of ffns) placer.say('ffn', index, { kvInputs: [], kvOutputs: [] });
  },
});

/** What a map is, in words. */
function kindOf({ map, rank }: Pick<Linearized, 'map' | 'rank'>): string {
  return rank === null ? map : `${map} of rank ${rank}`;
}

/** A map, and what it reads. */
interface Placement extends BranchInput {
  readonly fitted: FittedMap;
}

/** What is said of a map that was placed. */
interface Placed extends Pick<Linearized, 'map' | 'rank' | 'parameters'> {
  readonly how: string;
}

/** Puts the maps of a file in the places of branches. */
class Placer {
  readonly #placed = new Map<string, Placed>();

  constructor(
    readonly file: FitFile,
    readonly context: PassContext<{ readonly 'keep-going': OptionSpec<boolean> }, Linearized>,
  ) {}

  /** False, with a remark, where a layer is to be left out with `keep-going`. @throws Diagnostic OF_FIT, OF_CANNOT_REMOVE. */
  canPlace(part: Part, layer: number, branches: readonly Branch[], blocks: Blocks): boolean {
    const { options, refused } = this.context;
    return isPossible(
      () => {
        const plan = attempt(() => this.#plan(part, layer, branches, blocks));
        if (plan instanceof Refusal) throw passErrors.cannotRemove(layer, NAMES[part], plan.message);
      },
      options['keep-going'],
      (reason) => refused(`no map is put in the place of its ${NAMES[part]}: ${reason}`, layer),
    );
  }

  #plan(part: Part, layer: number, branches: readonly Branch[], { stream }: Blocks): Placement {
    const [first] = branches as readonly [Branch];
    if (branches.some(({ stage }) => stage !== first.stage))
      throw new Refusal('its branches are terms of several sums');
    const input = inputOf(new Set(branches.flatMap(({ nodes }) => [...nodes])), first.stage, stream);
    if (input instanceof Refusal) throw input;
    const known = [input.value, first.output, first.stage.root].map((value) => value && stream.types.get(value));
    if (known.some((dtype) => !dtype || !isScalable(dtype))) throw new Refusal('its element type is not known');
    const fitted = this.file.mapOf(part, layer, input.width);
    if (!fitted) throw passErrors.fit(this.file.path, `it has no map for the ${NAMES[part]} of layer ${layer}`);
    return { ...input, fitted };
  }

  /** What takes the place of branches for which `canPlace` is true. */
  place(part: Part, layer: number, branches: readonly Branch[], blocks: Blocks): StandIn {
    const { value, norm, width, fitted } = this.#plan(part, layer, branches, blocks);
    const { matrices, blocks: quantised, bias } = fitted;
    const { original, rewriter, belongs } = this.context;
    const [{ output, stage }] = branches as readonly [Branch];
    const { types } = blocks.stream;
    const name = linearName(nameOf(layer, original, blocks), part);
    const held = [...matrices, ...(bias ? [bias] : [])].reduce((sum, { dims }) => sum + elementCount(dims), 0);
    const parameters = held + (quantised ? width * width : 0);
    const isBias = matrices.length === 0 && !quantised;
    const how = norm || isBias ? '' : '; it reads the residual stream itself, as what it replaces did';
    const rank = matrices[1]?.dims[0] ?? null;
    this.#placed.set(`${part} ${layer}`, { parameters, rank, how, map: isBias ? 'bias' : 'linear' });
    const vectorOf = (like: Value): Value =>
      rewriter.addWeight(`${name}.bias`, cast(bias as Weight, types.get(like) as DataType));
    if (isBias) return { kind: 'constant', name: `${name}/Add`, vector: vectorOf(stage.root as Value) };
    const dtype = types.get(value) as DataType;
    const wanted = types.get(output) as DataType;
    return {
      kind: 'term',
      make: (sum) => {
        const node = (
          opType: string,
          inputs: readonly Value[],
          attributes: Record<string, Attribute> = {},
          part = opType,
        ): Value => {
          const type = wanted === dtype && part !== 'left' ? output.type : null;
          const outputs = [{ name: `${name}.${part.toLowerCase()}`, type }];
          const domain = opType === 'MatMulNBits' ? 'com.microsoft' : '';
          const spec = { opType, domain, name: `${name}/${part}`, inputs, outputs, attributes };
          const made = sum.graph.addNode(spec, { before: sum });
          belongs(made, layer);
          return made.output(0) as Value;
        };
        const [first, right] = matrices.map((weight) => cast(weight, dtype)) as [Weight, Weight?];
        const product = (at: Value, weight: Weight, part?: 'left' | 'right'): Value => {
          const own = rewriter.addWeight(`${part ? `${name}.${part}` : name}.weight`, weight);
          return node('MatMul', [at, own], {}, part);
        };
        const made = quantised
          ? node('MatMulNBits', this.#operands(value, quantised, name, dtype), blockAttributes(quantised.bits, width))
          : right
            ? product(product(value, first, 'left'), right, 'right')
            : product(value, first);
        const shifted = bias ? node('Add', [made, vectorOf(value)]) : made;
        return wanted === dtype
          ? shifted
          : node('Cast', [shifted], { to: { kind: 'int', value: BigInt(dataTypeCode(wanted)) } });
      },
    };
  }

  /** What MatMulNBits reads. */
  #operands(value: Value, blocks: NonNullable<FittedMap['blocks']>, name: string, dtype: DataType): Value[] {
    const { model, rewriter } = this.context;
    model.requireDomain('com.microsoft', 1);
    return [
      value,
      rewriter.addWeight(`${name}.weight`, blocks.levels),
      rewriter.addWeight(`${name}.weight_scales`, cast(blocks.scales, dtype)),
    ];
  }

  /** Says what was done. */
  say(part: Part, layer: number, caches: Pick<Linearized, 'kvInputs' | 'kvOutputs'>, kind = ''): void {
    const { fact, passed, count } = this.context;
    const { how, ...placed } = this.#placed.get(`${part} ${layer}`) as Placed;
    fact({ layer, part, ...placed, ...caches });
    count(placed.map === 'bias' ? 'biases' : 'linears');
    const { kvInputs, kvOutputs } = caches;
    count('caches', kvInputs.length + kvOutputs.length);
    const went = kvInputs.length > 0 ? `; ${kvInputs.join(', ')} went with it` : '';
    passed(`a ${kindOf(placed)} stands in the place of its ${NAMES[part]}${kind}${how}${went}`, layer);
  }
}

/** MatMulNBits of onnxruntime's com.microsoft domain, version 1. */
function blockAttributes(bits: number, width: number): Record<string, Attribute> {
  const values = { K: width, N: width, bits, block_size: MAP_BLOCK };
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, { kind: 'int', value: BigInt(value) } as const]),
  );
}

/** What the model's own names call a layer; our names where they do not number layers. */
function nameOf(layer: number, original: Blocks, { layers }: Blocks): string {
  const find = (all: readonly Layer[]): Layer | undefined => all.find(({ index }) => index === layer);
  const own = original.numbering === 'names' ? find(original.layers)?.name : undefined;
  return own && /\d$/.test(own) && !own.includes(' ') ? own : `layers.${find(layers)?.label ?? layer}`;
}
