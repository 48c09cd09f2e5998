/**
 * Two published models before their FFNs were fused: widths per layer, and which layers lost their attention.
 * Nemotron Ultra: only the sums of the fused runs up to layer 100 are published; they are split as evenly as multiples of
 * 256 allow. Sources: arXiv 2503.18908, 2505.00949, and the configurations published with the models.
 */
import type { DecoderSpec, LayerSpec } from './decoder.js';

export interface Published {
  readonly name: string;
  readonly spec: DecoderSpec;
  /** For --runs. */
  readonly runs: string;
  readonly fusedWidths: readonly number[];
  /** Of all weights, as published, in 10^9. */
  readonly parameters: number;
}

const LAYER = 256;

/** `count` multiples of 256 that add up to `sum`, as even as can be, larger ones first. */
function split(sum: number, count: number): number[] {
  const units = sum / LAYER;
  const low = Math.floor(units / count);
  return Array.from({ length: count }, (_, i) => LAYER * (i < units - low * count ? low + 1 : low));
}

/** `[count, width]` pairs in the order of the layers. */
function widthsOf(...pieces: readonly (readonly [number, number])[]): number[] {
  return pieces.flatMap(([count, width]) => new Array<number>(count).fill(width));
}

function layersOf(widths: readonly number[], without: readonly (readonly [number, number])[]): LayerSpec[] {
  return widths.map((width, i) => ({ width, attention: !without.some(([from, to]) => i >= from && i <= to) }));
}

/** Llama-3_1-Nemotron-Ultra-253B; `hidden` can be made smaller for a rehearsal. */
export function ultra(hidden = 16384): Published {
  const widths = [
    ...widthsOf([1, 5376], [1, 10752], [6, 16128], [4, 21504], [8, 53248], [1, 26624], [4, 21504], [19, 53248]),
    ...widthsOf([3, 37376], [1, 32000], [14, 26624], [1, 32000], [3, 53248]),
    ...split(399360, 8),
    ...split(425984, 12),
    ...split(343040, 15),
    ...widthsOf([14, 21504], [1, 21504], [1, 21504], [3, 26624], [1, 37376], [4, 53248], [1, 26624]),
  ];
  const without = [
    [24, 24],
    [26, 26],
    [51, 52],
    [54, 60],
    [64, 64],
    [66, 115],
  ] as const;
  return {
    name: 'Nemotron Ultra 253B',
    spec: specOf(hidden, 128, layersOf(widths, without)),
    runs: '66-73,74-85,86-100,101-114',
    fusedWidths: [399360, 425984, 343040, 301056],
    parameters: 253.4,
  };
}

/** Llama-3_3-Nemotron-Super-49B. */
export function superModel(hidden = 8192): Published {
  const widths = [
    ...widthsOf([1, 14336], [5, 28672], [2, 14336], [3, 28672], [1, 17920], [30, 28672]),
    ...widthsOf([1, 7168], [2, 14336], [1, 7168], [1, 28672], [1, 7168], [1, 14336], [3, 7168]),
    ...widthsOf([1, 28672], [1, 7168], [2, 5632], [1, 7168], [3, 5632], [2, 7168], [2, 2816], [2, 5632]),
    ...widthsOf([2, 2816], [1, 5632], [2, 2816], [9, 28672]),
  ];
  const without = [
    [6, 7],
    [11, 11],
    [42, 51],
    [53, 70],
  ] as const;
  return {
    name: 'Nemotron Super 49B',
    spec: specOf(hidden, 64, layersOf(widths, without)),
    runs: '42-50,53-69',
    fusedWidths: [107520, 87808],
    parameters: 49.9,
  };
}

function specOf(hidden: number, heads: number, layers: readonly LayerSpec[]): DecoderSpec {
  const few = Math.max(1, Math.round((heads * hidden) / (heads * 128)));
  const shape = { hidden, heads: few, kvHeads: Math.min(8, few), headSize: 128 };
  return { form: 'skip', dtype: 'bfloat16', ...shape, vocabulary: 128256, layers };
}
