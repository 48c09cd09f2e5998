/** Results as text a person can read: tables on stdout. */
import { basename } from 'node:path';
import Table from 'cli-table3';
import pico from 'picocolors';
import { sizeText } from '../../api/basics/byte-size.js';
import { driftOf } from '../../api/fuse/check.js';
import type { RecoveryFact } from '../../api/fuse/recovery-fact.js';
import type { Drift, Report } from '../../api/fuse/report.js';
import type { Inspection, LayerInspection } from '../../api/inspect/inspect.js';
import { visibleLines } from '../../ir/index.js';
import { byMessage, layersText, widthsText } from '../../passes/index.js';
import { type Comparison, countsText, type Placement, type Quality } from '../../runtime/index.js';
import { withFlags } from './flags.js';

// Only for a person at a terminal: picocolors would also colour what CI pipes into a file.
const colors = pico.createColors(process.stdout.isTTY === true && !process.env['NO_COLOR']);

/** The codes of our own colours. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const COLOR = /(\u001b\[(?:1|22|31|32|39)m)/;

/** A text as it may go to a terminal: of everything that moves the cursor or hides, only our own colours are left. */
export function printable(text: string): string {
  if (!colors.isColorSupported) return visibleLines(text);
  return text
    .split(COLOR)
    .map((part, i) => (i % 2 === 1 ? part : visibleLines(part)))
    .join('');
}

const PLAIN = {
  chars: {
    top: '',
    'top-mid': '',
    'top-left': '',
    'top-right': '',
    bottom: '',
    'bottom-mid': '',
    'bottom-left': '',
    'bottom-right': '',
    left: '',
    'left-mid': '',
    mid: '',
    'mid-mid': '',
    right: '',
    'right-mid': '',
    middle: '  ',
  },
  style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
};

/** A table without rules, its heading in bold on a terminal. */
export function table(head: string[], rows: string[][]): string {
  const made = new Table({ ...PLAIN, head: head.map((cell) => colors.bold(cell)) });
  made.push(...rows);
  return made
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

function countText(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(2)} B`;
  if (count >= 1e6) return `${(count / 1e6).toFixed(2)} M`;
  return count >= 1e4 ? `${(count / 1e3).toFixed(1)} k` : String(count);
}

/** The table of `onnx-fuse inspect`. */
export function renderInspection({ model, layers, runs }: Inspection): string {
  const opsets = Object.entries(model.opsets).map(([domain, version]) => `${domain} ${version}`);
  const lines = [
    `${basename(model.file)}  ${model.producer}, IR ${model.irVersion}, ${opsets.join(', ')}`,
    `${model.nodes} nodes, ${countText(model.parameters)} parameters, ${sizeText(model.weightBytes)} of weights` +
      (model.kvBytesPerToken === null ? '' : `, KV cache ${sizeText(model.kvBytesPerToken)} per token`),
    '',
  ];
  if (layers.length === 0) return [...lines, `no layers: ${model.reason}`].join('\n');
  if (model.doubt !== null) lines.push(`layers are numbered by position: ${model.doubt}`, '');
  const rows = layers.map((layer) => {
    const { index, name, attention, ffn } = layer;
    return [
      String(index),
      name,
      attentionText(layer),
      ffnText(layer),
      ffn.width === null ? '-' : String(ffn.width),
      ffn.norm ?? '-',
      ffn.dtype ?? '-',
      attention.reason ?? ffn.reason ?? 'fuses',
    ];
  });
  lines.push(table(['layer', 'name', 'attention', 'FFN', 'width', 'norm', 'dtype', 'fuses, or why not'], rows), '');
  if (runs.length === 0) lines.push('no attention-free run to fuse as the model is; --remove-attention makes one');
  for (const run of runs) {
    lines.push(`${layersText(run.layers)} would fuse: ${widthsText(run.widths)} -> ${run.fusedWidth}`);
  }
  return lines.join('\n');
}

/** What mixes tokens in a layer, or the linear in its place. */
function attentionText({ attention, linears, others }: LayerInspection): string {
  const own = attention.present ? [`${attention.kind}${attention.removable ? '' : ' (fixed)'}`] : [];
  const linear = linears.filter(({ slot }) => slot === 'attention').map(() => 'linear');
  const mixers = others.filter(({ mixesTokens }) => mixesTokens).map(({ kind }) => kind);
  return [...own, ...linear, ...mixers].join(' + ') || '-';
}

/** The FFN of a layer, or the linear in its place. */
function ffnText({ ffn, linears }: LayerInspection): string {
  const linear = linears.filter(({ slot }) => slot !== 'attention').map(() => 'linear');
  return [...(ffn.kind === null ? [] : [ffn.kind]), ...linear].join(' + ') || '-';
}

/** What `onnx-fuse in out` prints. */
export function renderReport(report: Report): string {
  const notes = report.remarks.filter(({ kind }) => kind === 'analysis').map(({ message }) => `note: ${message}`);
  const nothing =
    report.steps.length > 0 ? 'nothing was changed' : 'nothing was fused: the output is a copy of the input';
  const done = report.done.length > 0 ? report.done : [nothing];
  const lines = [...cut(done, MOST_DONE), ...notes];
  const refused = byMessage(report.refused.map(({ layer, reason }) => ({ layer, message: reason })));
  // Not cut: each was asked for.
  if (refused.length > 0) lines.push('left undone:', ...refused.map((line) => `  ${withFlags(line)}`));
  lines.push(...renderLeft(report), '', ...renderFigures(report), '', ...renderChecks(report));
  lines.push(...renderFolder(report));
  if (report.dryRun) lines.push('', 'dry run: nothing was written');
  return lines.join('\n');
}

/** Lines about what was done, and about what was left, that a terminal shows. */
const MOST_DONE = 40;
const MOST_LEFT = 12;

function cut(lines: readonly string[], most: number): readonly string[] {
  if (lines.length <= most) return lines;
  return [...lines.slice(0, most), `... and ${lines.length - most} more (--report lists all)`];
}

function renderFolder({ folder, dryRun }: Report): string[] {
  if (!folder || dryRun) return [];
  const rewritten = folder.rewritten.length > 0 ? `, rewrote ${folder.rewritten.join(', ')}` : '';
  const copied = folder.copied.length > 0 ? `, copied ${listed(folder.copied)}` : '';
  // Files that stay for one reason share a line.
  const byReason = new Map<string, string[]>();
  for (const { file, reason } of folder.left) byReason.set(reason, [...(byReason.get(reason) ?? []), file]);
  return [
    '',
    `folder ${folder.path}${rewritten}${copied}`,
    ...[...byReason].map(([reason, files]) => `  not copied: ${listed(files)} (${reason})`),
    ...folder.notes.map((note) => `  note: ${note}`),
  ];
}

/** Names of files in one line. */
const MOST_NAMES = 24;

function listed(names: readonly string[]): string {
  const rest = names.length - MOST_NAMES;
  return rest > 0 ? `${names.slice(0, MOST_NAMES).join(', ')} and ${rest} more (--report lists all)` : names.join(', ');
}

function renderLeft({ left }: Report): string[] {
  // Layers that share a reason share a line; where no layer is to blame, the pass is named.
  const ofLayers = left.filter(({ layer }) => layer !== null).map(({ layer, reason }) => ({ layer, message: reason }));
  const others = left.filter(({ layer }) => layer === null).map(({ pass, reason }) => `${pass}: ${reason}`);
  const lines = [...byMessage(ofLayers), ...others].map(withFlags);
  return lines.length === 0 ? [] : ['left as they are:', ...cut(lines, MOST_LEFT).map((line) => `  ${line}`)];
}

function renderFigures(report: Report): string[] {
  const kv = (bytes: number | null): string => (bytes === null ? 'unknown' : sizeText(bytes));
  const total = report.output.reduce((sum, file) => sum + file.bytes, 0);
  const input = report.input.reduce((sum, file) => sum + file.bytes, 0);
  const rows = [
    ['parameters', countText(report.parameters.before), countText(report.parameters.after)],
    ['KV cache per token', kv(report.kvBytesPerToken.before), kv(report.kvBytesPerToken.after)],
    ['nodes', String(report.nodes.before), String(report.nodes.after)],
  ];
  if (report.written) rows.push(['bytes', sizeText(input), sizeText(total)]);
  return [table(['', 'before', 'after'], rows)];
}

function renderChecks({ checks, recovery }: Report): string[] {
  const lines: string[] = recovery ? recoveryLines(recovery) : [];
  const { algebra, drift } = checks;
  if (algebra) {
    const mark = algebra.pass ? colors.green('pass') : colors.red('FAIL');
    lines.push(
      `algebra  ${mark}  fused against parallel: relative error ${algebra.maxRelative.toExponential(1)}` +
        ` (at most ${algebra.tolerance.toExponential(0)} for ${algebra.precision}), ${algebra.positions > 0 ? `${algebra.positions} positions` : 'no logits'}`,
    );
  }
  if (checks.requantization) {
    lines.push(
      `requantised: relative error ${checks.requantization.maxRelative.toExponential(1)} against the exact parallel model` +
        ' (as asked for; not held to a tolerance)',
    );
  }
  if (drift) lines.push(`drift    ${driftText(drift)}`);
  if (checks.skipped) lines.push(`not checked: ${withFlags(checks.skipped)}`);
  if (checks.assumed.length > 0)
    lines.push(`inputs of unknown purpose got arbitrary values: ${checks.assumed.join(', ')}`);
  return lines;
}

/** What the maps are worth, on text that nothing was fitted on, and which branches got none. */
function recoveryLines({ source, maps, removed, recovered }: RecoveryFact): string[] {
  const change = (share: number): string => `${share < 0 ? '' : '+'}${(100 * share).toFixed(1)} %`;
  const row = (name: string, { kl, perplexityIncrease, top1, positions }: Quality): string[] => [
    name,
    kl.toPrecision(3),
    change(perplexityIncrease),
    `${(100 * top1).toFixed(1)} %`,
    String(positions),
  ];
  const without = (kind: string) =>
    maps.filter((each) => each.kind === kind).map(({ part, layer }) => `${part} ${layer}`);
  const [biases, nothing] = [without('bias'), without('nothing')];
  return [
    `recovered, judged on ${source}:`,
    table(
      ['', 'KL', 'perplexity', 'top-1', 'positions'],
      [row('removed', removed), row('with maps in their places', recovered)],
    ),
    ...(biases.length > 0 ? [`a bias alone was worth more than a map: ${biases.join(', ')}`] : []),
    ...(nothing.length > 0 ? [`nothing was worth putting there: ${nothing.join(', ')}`] : []),
    '',
  ];
}

function driftText(drift: Drift): string {
  return `from the original on random tokens: ${scoresText(drift)}, cosine ${drift.cosine.toFixed(4)}`;
}

/** What next-token distributions say; nothing without logits, which is no agreement. */
function scoresText({ kl, maxKl, top1 }: Drift): string {
  if (kl === null || maxKl === null || top1 === null) return 'no logits: KL and top-1 agreement not measured';
  const agreement = `top-1 agreement ${(100 * top1).toFixed(1)} %`;
  return `KL ${kl.toPrecision(3)} (largest ${maxKl.toPrecision(3)}), ${agreement}`;
}

/** Rows of a comparison: a model has two caches a layer. */
const MOST_OUTPUTS = 8;

/** The outputs that differ most, in the order of the model. */
function worstOutputs({ perOutput }: Comparison): { shown: Comparison['perOutput']; more: Comparison['perOutput'] } {
  const far = ({ relative }: Comparison['perOutput'][number]): number => (Number.isNaN(relative) ? Infinity : relative);
  const order = [...perOutput].sort((a, b) => far(b) - far(a));
  const logits = perOutput.slice(0, 1);
  const kept = new Set([...logits, ...order].slice(0, MOST_OUTPUTS));
  return { shown: perOutput.filter((each) => kept.has(each)), more: perOutput.filter((each) => !kept.has(each)) };
}

/** What `onnx-fuse verify` prints. */
export function renderComparison(comparison: Comparison): string {
  const { shown, more } = worstOutputs(comparison);
  const rows = shown.map((output) => [
    output.name,
    String(output.elements),
    output.absolute.toExponential(2),
    output.relative.toExponential(2),
    output.cosine.toFixed(6),
  ]);
  const lines = [table(['output', 'elements', 'max abs', 'relative', 'cosine'], rows), ''];
  if (more.length > 0) lines.splice(1, 0, `and ${more.length} that are closer (--json lists all)`);
  if (comparison.onlyReference.length > 0) lines.push(`only in the first: ${comparison.onlyReference.join(', ')}`);
  if (comparison.onlyCandidate.length > 0) lines.push(`only in the second: ${comparison.onlyCandidate.join(', ')}`);
  const drift = driftOf(comparison);
  lines.push(
    drift.positions > 0
      ? `next token, ${drift.positions} positions of random tokens: ${scoresText(drift)}`
      : scoresText(drift),
  );
  if (comparison.assumed.length > 0) lines.push(`arbitrary values fed to: ${comparison.assumed.join(', ')}`);
  lines.push(`worst relative error ${comparison.worst.relative.toExponential(2)}`);
  return lines.join('\n');
}

/** `on cuda 312 nodes; on the CPU 14 small ones (Shape 9, Gather 5)`. */
export function renderPlacement({ provider, onProvider, computedOnCpu, smallOnCpu }: Placement): string {
  const part = (counts: Placement['smallOnCpu'], what: string): string => {
    const count = Object.values(counts).reduce((sum, each) => sum + each, 0);
    return count > 0 ? `; on the CPU ${count} ${what} (${countsText(counts)})` : '';
  };
  return `on ${provider} ${onProvider} nodes${part(computedOnCpu, "of the model's work")}${part(smallOnCpu, 'small ones')}`;
}
