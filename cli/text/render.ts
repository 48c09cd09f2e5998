/** Results as text a person can read: tables on stdout. */
import { basename } from 'node:path';
import { countText, sizeText } from '../../api/basics/byte-size.js';
import type { RecoveryFact } from '../../api/fuse/recovery-fact.js';
import type { Drift, OperatorChange, Report } from '../../api/fuse/report.js';
import { counted } from '../../ir/visible.js';
import { byMessage } from '../../passes/index.js';
import type { Quality } from '../../runtime/index.js';
import { cautions, growth, percent, scoresText, secondsText } from './figures.js';
import { withFlags } from './flags.js';
import { colors, table } from './table.js';
import { textWidth } from './width.js';

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
  lines.push(...renderShared(report), ...renderFolder(report));
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

/** What a model that shares weights needs, and for how long. */
function renderShared({ shared, output }: Report): string[] {
  if (shared.length === 0) return [];
  const model = output.at(-1)?.path ?? '';
  const files = shared.map(({ file, bytes }) => `${file} (${sizeText(bytes)})`);
  return [
    '',
    `shares the weights of ${files.join(', ')}: where that is moved, changed or removed, ${basename(model)} cannot be read;`,
    `  onnx-fuse pack ${basename(model)} whole.onnx makes a copy that needs no other file`,
  ];
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
  const { parameters, kvBytesPerToken, nodes, predicted } = report;
  const rows = [
    ['parameters', countText(parameters.before), countText(parameters.after)],
    ['KV cache per token', kv(kvBytesPerToken.before), kv(kvBytesPerToken.after)],
    ['nodes', String(nodes.before), String(nodes.after)],
  ];
  if (report.written)
    rows.push([report.shared.length > 0 ? 'bytes (after: new ones)' : 'bytes', sizeText(input), sizeText(total)]);
  if (predicted) {
    const { before, after } = predicted.secondsPerToken;
    rows.push(['time of a token (predicted)', secondsText(before), secondsText(after)]);
  }
  return [
    table(['', 'before', 'after'], rows),
    ...(predicted ? [`predicted for ${predicted.device}, not measured: ${predicted.source}`] : []),
    ...renderOperators(report),
  ];
}

/** Operators that a terminal shows. */
const MOST_OPERATORS = 10;

/** The operators of which there are more or fewer than before, or that read other weights. */
function renderOperators({ operators }: Report): string[] {
  const isChanged = ({ before, after }: OperatorChange): boolean =>
    before.nodes !== after.nodes || before.parameters !== after.parameters || before.bytes !== after.bytes;
  const changed = operators.filter(isChanged);
  if (changed.length === 0) return [];
  // Without its domain, where no operator of another domain is called the same.
  const shortName = (name: string): string => {
    const base = (full: string): string => full.slice(full.lastIndexOf('.') + 1);
    return operators.filter(({ operator }) => base(operator) === base(name)).length === 1 ? base(name) : name;
  };
  const cell = (before: number, after: number, text: (value: number) => string): string => {
    if (before === 0 && after === 0) return '-';
    return before === after ? text(before) : `${text(before)} -> ${text(after)}`;
  };
  const rows = changed
    .slice(0, MOST_OPERATORS)
    .map(({ operator, before, after }) => [
      shortName(operator),
      cell(before.nodes, after.nodes, String),
      cell(before.parameters, after.parameters, countText),
      cell(before.bytes, after.bytes, sizeText),
    ]);
  const more = changed.length - rows.length;
  const others = operators.length - changed.length;
  const rest = [
    ...(more > 0 ? [`${counted(more, 'more operator')} changed`] : []),
    ...(others > 0 ? [`${counted(others, 'operator')} did not change`] : []),
  ];
  return [
    '',
    table(['operator', 'nodes', 'parameters', 'bytes of weights'], rows, textWidth()),
    ...(rest.length > 0 ? [`${rest.join(', ')} (--report lists all)`] : []),
  ];
}

function renderChecks({ checks, recovery }: Report): string[] {
  const lines: string[] = recovery ? recoveryLines(recovery) : [];
  const { algebra, drift } = checks;
  if (algebra) {
    const mark = algebra.pass ? colors.green('pass') : colors.red('FAIL');
    lines.push(
      `algebra  ${mark}  fused against parallel: relative error ${algebra.maxRelative.toExponential(1)}` +
        ` (at most ${algebra.tolerance.toExponential(0)} for ${algebra.precision}), ${algebra.positions > 0 ? counted(algebra.positions, 'position') : 'no logits'}`,
    );
  }
  if (checks.requantization) {
    lines.push(
      `requantised: relative error ${checks.requantization.maxRelative.toExponential(1)} against the exact parallel model` +
        ' (as asked for; not held to a tolerance)',
    );
  }
  // What it costs on text is said above where maps were judged.
  if (drift && !recovery) lines.push(`drift    ${driftText(drift)}`, ON_TEXT);
  if (checks.skipped) lines.push(`not checked: ${withFlags(checks.skipped)}`);
  if (checks.assumed.length > 0)
    lines.push(`inputs of unknown purpose got arbitrary values: ${checks.assumed.join(', ')}`);
  return lines;
}

/** What the maps are worth, on text that nothing was fitted on, and which branches got none. */
function recoveryLines({ source, maps, removed, recovered }: RecoveryFact): string[] {
  const row = (name: string, { kl, perplexityIncrease, top1, positions }: Quality): string[] => [
    name,
    kl.toPrecision(3),
    growth(perplexityIncrease),
    percent(top1),
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
    ...cautions(recovered.positions),
    ...(biases.length > 0 ? [`a bias alone was worth more than a map: ${biases.join(', ')}`] : []),
    ...(nothing.length > 0 ? [`nothing was worth putting there: ${nothing.join(', ')}`] : []),
    '',
  ];
}

/** Random tokens are far from what a model was trained on, and the smallest change shows. */
const ON_TEXT = '         (that it changed, not what it costs: onnx-fuse verify with --data measures that on text)';

function driftText(drift: Drift): string {
  return `from the original on random tokens: ${scoresText(drift)}, cosine ${drift.cosine.toFixed(4)}`;
}
