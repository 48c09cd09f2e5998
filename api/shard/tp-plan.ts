/**
 * A plan of tensor parallelism: which projections are cut, in the words of Hugging Face's `base_model_tp_plan`:
 *
 *     { "layers.*.self_attn.q_proj": "colwise", "layers.*.self_attn.o_proj": "rowwise",
 *       "layers.3.mlp.down_proj": "replicate", "lm_head": "colwise_gather_output" }
 *
 * A later line wins over an earlier one. The projections of a branch belong together: its first ones are colwise and its
 * last rowwise, or all are replicated. What is not named is cut.
 */
import { apiErrors } from '../basics/errors.js';
import { readJson } from '../basics/small-file.js';

/** What a plan of tensor parallelism leaves whole. */
export interface TpPlan {
  /** Layers that every rank computes whole. */
  readonly replicateAttention: readonly number[];
  readonly replicateFfn: readonly number[];
  readonly lmHead?: 'gather' | 'replicate' | undefined;
}

type Role = 'attention' | 'ffn';
type Style = 'cut' | 'replicate';

const PROJECTIONS: ReadonlyMap<string, { readonly role: Role; readonly isLast: boolean }> = new Map(
  Object.entries<{ readonly role: Role; readonly isLast: boolean }>({
    ...entries('attention', false, 'q k v qkv q_proj k_proj v_proj qkv_proj query_key_value c_attn'),
    ...entries('attention', true, 'o o_proj out_proj dense_o'),
    ...entries('ffn', false, 'gate up gate_up gate_proj up_proj gate_up_proj fc1 c_fc w1 w3'),
    ...entries('ffn', true, 'down down_proj fc2 w2'),
  }),
);

function entries(role: Role, isLast: boolean, names: string) {
  return Object.fromEntries(names.split(' ').map((name) => [name, { role, isLast }]));
}

const LINE = /^(?:model\.|transformer\.)*layers\.(\*|\d+)\.(?:[a-z_]+\.)?([a-z0-9_]+)$/;
const MOST_LAYERS = 1000;

/** Reads a plan. @throws Diagnostic OF_NO_SUCH_FILE, OF_READ, OF_PLAN with the line that cannot be followed. */
export function readTpPlan(path: string): TpPlan {
  const remedy = 'write lines like "layers.*.mlp.down_proj": "rowwise"';
  const value = readJson(path, (place, why) => apiErrors.plan(place, why, remedy));
  const refuse = (line: string, why: string): never => {
    throw apiErrors.plan(path, `"${line}" ${why}`, remedy);
  };
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw apiErrors.plan(path, 'it is no object', remedy);
  }
  let lmHead: TpPlan['lmHead'];
  /** What every layer does, and what one does. */
  const all: Record<Role, Map<string, Style>> = { attention: new Map(), ffn: new Map() };
  const own = new Map<string, { role: Role; layer: number; styles: Map<string, Style> }>();
  for (const [line, word] of Object.entries(value)) {
    if (typeof word !== 'string') return refuse(line, `is ${JSON.stringify(word)}, not a word`);
    if (line === 'lm_head') {
      const isGathered = /^(colwise|colwise_rep|colwise_gather_output|gather)$/.test(word);
      if (!isGathered && !/^replicate(d)?$/.test(word)) refuse(line, `is ${word}: expected gather or replicate`);
      lmHead = isGathered ? 'gather' : 'replicate';
      continue;
    }
    const [, layer, name] = LINE.exec(line) ?? [];
    const projection = PROJECTIONS.get(name ?? '');
    if (!layer || !name || !projection) return refuse(line, 'names no projection that is known');
    const { role, isLast } = projection;
    const wanted = isLast ? 'rowwise' : 'colwise';
    if (word !== wanted && !/^replicate(d)?$/.test(word)) {
      refuse(line, `is ${word}: expected ${wanted} or replicate`);
    }
    const style: Style = word === wanted ? 'cut' : 'replicate';
    if (layer === '*') all[role].set(name, style);
    else {
      if (Number(layer) >= MOST_LAYERS) refuse(line, 'is beyond any model');
      const key = `${role} ${Number(layer)}`;
      const found = own.get(key) ?? { role, layer: Number(layer), styles: new Map<string, Style>() };
      found.styles.set(name, style);
      own.set(key, found);
    }
  }
  const settle = (place: string, styles: ReadonlyMap<string, Style>): Style | null => {
    const kinds = new Set(styles.values());
    if (kinds.size > 1)
      refuse(place, 'has projections that are cut and others that are replicated: they belong together');
    return [...kinds][0] ?? null;
  };
  const replicated = (role: Role): number[] => {
    const common = settle(`layers.* ${role}`, all[role]);
    const single = [...own.values()].filter((each) => each.role === role);
    const chosen = single.map(({ layer, styles }) => {
      // A line for one layer that names a single projection speaks for its branch.
      return { layer, style: settle(`layers.${layer} ${role}`, styles) };
    });
    if (common === 'replicate') {
      const cut = new Set(chosen.filter(({ style }) => style === 'cut').map(({ layer }) => layer));
      return Array.from({ length: MOST_LAYERS }, (_, i) => i).filter((layer) => !cut.has(layer));
    }
    const layers = chosen.filter(({ style }) => style === 'replicate').map(({ layer }) => layer);
    return layers.sort((a, b) => a - b);
  };
  return { replicateAttention: replicated('attention'), replicateFfn: replicated('ffn'), lmHead };
}
