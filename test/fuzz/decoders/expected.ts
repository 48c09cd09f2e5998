/** What a pipeline must have made of the sums: edits of the list by what was asked for and what the passes say they did. */
import { factsOf, type PipelineResult, removeAttention, removeFfn } from '../../../passes/index.js';
import type { FuzzRequest } from './request.js';
import type { Sum, Term } from './semantics.js';
import { type DecoderSpec, type LayerSpec, layerNumber } from './spec.js';

/** What the passes say they did; layers by their place, not by number. */
export interface Done {
  readonly removedAttention: readonly number[];
  readonly removedFfn: readonly number[];
  readonly windows: readonly (readonly number[])[];
  readonly literal: boolean;
  readonly runs: readonly (readonly number[])[];
  readonly lastNorm: boolean;
}

/** The sums after the steps that change the function. */
export function editedSums(
  sums: readonly Sum[],
  { removedAttention, removedFfn, windows, literal, runs, lastNorm }: Done,
): Sum[] {
  let edited = without(sums, ({ layer, role }) =>
    (role === 'attention' ? removedAttention : removedFfn).includes(layer),
  );
  for (const window of windows) {
    const isIn = ({ layer }: Term): boolean => window.includes(layer);
    const own = edited.filter(({ terms }) => terms.some(isIn));
    if (literal) edited = merged(edited, own, (term) => ({ ...term, afterAttention: isAfter(term, own) }));
    else {
      const mixers = own.filter(({ terms }) => terms.some(({ role }) => role === 'attention'));
      const ffns = own.filter((sum) => !mixers.includes(sum));
      edited = merged(merged(edited, mixers), ffns);
      // All attentions come first, whatever stood between them.
      const place = edited.findIndex(({ terms }) => terms.some(isIn));
      const [first, second] = edited.filter(({ terms }) => terms.some(isIn)).sort((a, b) => rank(a) - rank(b));
      edited = edited.filter((sum) => sum !== first && sum !== second);
      edited.splice(place, 0, ...[first, second].filter((sum) => sum !== undefined));
    }
  }
  for (const run of runs) {
    const isIn = ({ layer, role }: Term): boolean => role === 'ffn' && run.includes(layer);
    const last = run.at(-1) as number;
    const own = edited.filter(({ terms }) => terms.some(isIn));
    edited = merged(edited, own, (term) => (lastNorm && isIn(term) ? { ...term, normOf: last } : term));
  }
  return edited;
}

const rank = ({ terms }: Sum): number => (terms.some(({ role }) => role === 'attention') ? 0 : 1);

/** In the literal form an FFN behind its own attention reads that too; where both were on one sum it does not. */
function isAfter({ layer, role }: Term, sums: readonly Sum[]): boolean {
  if (role !== 'ffn') return false;
  const own = sums.filter(({ terms }) => terms.some((term) => term.layer === layer));
  return own.length === 2;
}

function without(sums: readonly Sum[], isGone: (term: Term) => boolean): Sum[] {
  // The norm of a post-norm network stays where it was.
  return sums
    .map(({ terms, norm }) => ({ terms: terms.filter((term) => !isGone(term)), norm }))
    .filter(({ terms, norm }) => terms.length > 0 || norm !== null);
}

function merged(all: readonly Sum[], some: readonly Sum[], change: (term: Term) => Term = (term) => term): Sum[] {
  const [first] = some;
  if (!first) return [...all];
  const together = { terms: some.flatMap(({ terms }) => terms).map(change), norm: some.at(-1)?.norm ?? null };
  return all.flatMap((sum) => (sum === first ? [together] : some.includes(sum) ? [] : [sum]));
}

/** The places of layers with these numbers, in the order of the layers. */
export function placesOf(spec: DecoderSpec, numbers: readonly (string | number)[]): number[] {
  const wanted = new Set(numbers.map(Number));
  return spec.layers.flatMap((_, i) => (wanted.has(layerNumber(spec, i)) ? [i] : []));
}

/**
 * The runs that the default rules give where all FFNs are alike: neighbours without attention, led by one with attention
 * if asked, less the last ones, cut where they are too wide. By places. Null where the rules say more than that.
 */
export function expectedRuns(spec: DecoderSpec, request: FuzzRequest, done: Done): number[][] | null {
  const ffns = spec.layers.flatMap(({ ffn }) => (ffn ? [ffn] : []));
  const isAlike = ffns.every((ffn) => ffn.activation === ffns[0]?.activation);
  const isPlain = spec.residual === 'pre' && isAlike && request.runs.length === 0 && request.windows.length === 0;
  const isScaled = ffns.some(({ channels }) => channels === 'scalar');
  const isDense = ffns.every(({ form, format }) => form !== 'gemm' && format.kind === 'dense');
  if (!isPlain || !request.fuse || isScaled || !isDense) return null;
  const [noAttention, noFfn] = [new Set(done.removedAttention), new Set(done.removedFfn)];
  const left = spec.layers.flatMap((layer, i) => {
    const own = {
      place: i,
      mixes: layer.attention && !noAttention.has(i),
      width: noFfn.has(i) ? null : (layer.ffn?.width ?? null),
    };
    return own.mixes || own.width !== null ? [own] : [];
  });
  const runs: number[][] = [];
  for (let i = 0; i < left.length; ) {
    const start = i;
    const at = (k: number) => left[k] as (typeof left)[number];
    if (at(i).width !== null && at(i).mixes && request.lead && i + 1 < left.length && !at(i + 1).mixes) i++;
    while (i < left.length && !at(i).mixes && at(i).width !== null) i++;
    const found = left.slice(start, i);
    runs.push(...pieces(found.slice(0, Math.max(0, found.length - request.keepLast)), request.maxWidth));
    i = Math.max(i, start + 1);
  }
  return runs.filter((run) => run.length > 1);
}

function pieces(members: readonly { place: number; width: number | null }[], most: number): number[][] {
  const found: number[][] = [];
  let [piece, width]: [number[], number] = [[], 0];
  for (const { place, width: own } of members) {
    if (most > 0 && width + (own ?? 0) > most) {
      found.push(piece);
      [piece, width] = [[], 0];
    }
    piece.push(place);
    width += own ?? 0;
  }
  return [...found, piece];
}

/** Layers that were named and of which neither a removal nor a word is known. */
export function passedOver(
  spec: DecoderSpec,
  request: FuzzRequest,
  result: PipelineResult,
  missed: ReadonlySet<string>,
): string | null {
  const removed = new Set(factsOf(result, removeAttention).map(({ layer }) => layer));
  const removedFfn = factsOf(result, removeFfn).map(({ layer }) => layer);
  for (const number of request.removeAttention) {
    if (!removed.has(number) && !missed.has(String(number)))
      return `the attention of layer ${number} stays, and nothing is said`;
  }
  for (const number of request.removeFfn) {
    if (!removedFfn.includes(number) && !missed.has(String(number))) {
      return `the FFN of layer ${number} stays, and nothing is said`;
    }
  }
  for (const number of [...removed, ...removedFfn]) {
    if (!request.removeAttention.includes(number) && !request.removeFfn.includes(number))
      return `layer ${number} was changed unasked`;
    if (placesOf(spec, [number]).length === 0) return `layer ${number} is none of the model's`;
  }
  for (const number of removed) {
    const [place] = placesOf(spec, [number]);
    if (!(spec.layers[place as number] as LayerSpec).attention) return `layer ${number} has no attention that could go`;
  }
  return null;
}
