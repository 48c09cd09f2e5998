import { counted } from '../../../ir/visible.js';
import { sizeText } from '../../basics/byte-size.js';
import { documentOf, type PagePart } from '../../page/document.js';
import { cellBar, commandLine, dataTable, fact, html, type Markup, notMeasured } from '../../page/markup.js';
import { change, count, duration, figure, greatest, percent, times } from '../../page/numbers.js';
import { rowsOf } from '../../page/rows.js';
import { type PlanFile, planText } from '../plan-file.js';
import { drift } from './drift.js';
import { evidenceOf, type Figures, type PlanEvidence } from './evidence.js';
import { benchOf, type HeldOut, heldOutOf, type ReportExtras, samplesOf } from './extras.js';
import { heatMap } from './heat-map.js';
import { layerKeys, layerMap } from './layer-map.js';
import { layerTable, scoreBars, scoreNotes } from './score-bars.js';
import { frontTables, randomPlans, tradeOff } from './trade-off.js';

export { extrasOfBench, extrasOfVerify, type ReportExtras } from './extras.js';

/** Makes the command line that applies a plan of the name of the model's file. */
export type ApplyingCommand = (model: string) => string;

/**
 * The page. Evidence that is missing or odd is said not to be measured. Without `command` the page shows no command line.
 * @throws Diagnostic OF_PLAN when the plan changes layers that, by its own list, the model does not have.
 */
export function renderReport(plan: PlanFile, extras: ReportExtras = {}, command?: ApplyingCommand): string {
  const evidence = evidenceOf(plan);
  const heldOut = heldOutOf(extras);
  const numbers = evidence.layers?.map(({ layer }) => layer) ?? evidence.scores?.layers ?? null;
  const rows = numbers && rowsOf(numbers);
  const part = (id: string, title: string, content: Markup): PagePart => ({ id, title, content });
  return documentOf(
    `${evidence.model.file}: plan`,
    headline(evidence, heldOut, extras, command?.(evidence.model.file)),
    [
      part('layers', 'Layer by layer', layersPart(evidence, rows)),
      part('dependency', 'Which blocks depend on which', heatMap(evidence)),
      part('trade-off', 'Speed against quality', tradeOffPart(evidence, heldOut)),
      part('random', 'Random plans of the same size', randomPlans(evidence)),
      part('ablations', 'The same attentions removed, in other ways', ablations(evidence)),
      ...(heldOut ? [] : [part('held-out', 'Quality on text that was held out', NO_HELD_OUT)]),
      part('samples', 'What the models say', samplesOf(extras)),
      part('bench', 'Measured speed', benchOf(extras)),
      part('method', 'How it was measured', method(evidence)),
    ],
  );
}

const NO_HELD_OUT = notMeasured('no verification on text was given to this report');

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

/** A KL, or why there is none: JSON has no infinity, which is what a broken model gives. */
function klText(quality: Figures): string {
  return quality.kl === null ? 'no number' : figure(quality.kl);
}

function headline(
  evidence: PlanEvidence,
  heldOut: HeldOut | null,
  extras: ReportExtras,
  command: string | undefined,
): Markup {
  const { model, chosen, budget, cost, options } = evidence;
  const limits = [
    ...(budget.maxKl === null ? [] : [`KL at most ${figure(budget.maxKl)}`]),
    ...(budget.maxPerplexityIncrease === null ? [] : [`perplexity at most ${change(budget.maxPerplexityIncrease)}`]),
    ...(budget.minTop1 === null ? [] : [`top-1 at least ${percent(budget.minTop1)}`]),
  ];
  const quality = (name: string, found: Figures | null): Markup => {
    if (!found) return fact(`KL, ${name}`, '–', 'not measured');
    const { positions, perplexityIncrease, top1 } = found;
    return fact(
      `KL, ${name}`,
      klText(found),
      [
        ...(perplexityIncrease === null ? [] : [`perplexity ${change(perplexityIncrease)}`]),
        ...(top1 === null ? [] : [`top-1 ${percent(top1)}`]),
      ].join(', '),
      ...(positions === null ? [] : [counted(positions, 'position', { text: count(positions) })]),
    );
  };
  const seconds =
    cost.originalSeconds === null || chosen.seconds === null
      ? []
      : [
          `${duration(cost.originalSeconds)} → ${duration(chosen.seconds)} a ${options.optimizeFor === 'prompt' ? 'prompt' : 'token'}`,
        ];
  // A KL that is no number is over every limit.
  const within =
    chosen.check && budget.maxKl !== null ? chosen.check.kl !== null && chosen.check.kl <= budget.maxKl : null;
  const words = planText(chosen);
  const measured = measuredSpeed(evidence, extras);
  const predicted = fact(
    'Predicted speed',
    chosen.speedup === null ? '–' : times(chosen.speedup),
    ...(chosen.speedup === null ? ['not predicted'] : ['a prediction, not a measurement']),
    ...seconds,
  );
  return html`<p class="kicker">onnx-fuse plan for</p>
<h1>${model.file}</h1>
<p class="words">${sentence(words)}</p>
<p class="note">${wanted(evidence)}Budget: ${limits.join(', ') || 'none'}.${within === true && ' On the text it was checked on, the plan is within the KL.'}${within === false && html` <span class="over">On the text it was checked on, the plan is over the KL.</span>`}</p>
${command !== undefined && words !== NOTHING && commandLine('This command applies the plan.', command)}
<dl class="facts">${measured && fact('Measured speed', times(measured.speedup), measured.how)}${predicted}${quality('where it was searched', chosen.quality)}${quality('where it was checked', chosen.check)}${chosen.removed && quality('the same without maps', chosen.removed)}${heldOut && quality(heldOut.source ? `held out: ${heldOut.source}` : 'held out', heldOut.quality)}</dl>
<p class="note">KL is KL(original ‖ changed) of the next token, nats per token, mean over positions; both models are told the true tokens. Maps were fitted on one part of the text and plans searched on another; nothing was fitted or chosen on the part that the choice was checked on.</p>`;
}

/** What is to be fast, in words. */
const GOALS = {
  decode: 'tokens',
  prompt: 'prompts of 128 tokens',
  both: 'tokens, fusing only what makes prompts no slower',
} as const;

/** What `planText` says of a plan that changes nothing. */
const NOTHING = 'change nothing';

/** The speed of a token, or of a prompt, that was measured on the way to the plan, or afterwards. */
function measuredSpeed(
  { measured, options }: PlanEvidence,
  { bench = [] }: ReportExtras,
): { speedup: number; how: string } | null {
  const row = bench.find(({ isToken }) => isToken === (options.optimizeFor !== 'prompt'));
  if (row) return { speedup: row.ratio, how: row.name };
  return measured && { speedup: measured.speedup, how: measured.runtime };
}

/** The speed that was asked for. */
function wanted({ target }: PlanEvidence): string {
  return target === null ? '' : `The best plan that is predicted to be ${times(target)} as fast was asked for. `;
}

function layersPart(evidence: PlanEvidence, rows: ReturnType<typeof rowsOf> | null): Markup {
  if (!rows) return notMeasured('the file says neither which layers the model has nor their scores');
  return html`${layerKeys(evidence)}
<div class="row">${layerMap(evidence, rows)}${scoreBars(evidence, rows)}</div>
${scoreNotes(evidence)}
${layerTable(evidence, rows)}`;
}

function tradeOffPart(evidence: PlanEvidence, heldOut: HeldOut | null): Markup {
  const { chosen, budget } = evidence;
  const series = [
    { name: 'searched on', quality: chosen.quality },
    { name: 'checked on', quality: chosen.check },
    { name: 'held out', quality: heldOut?.quality ?? null },
  ];
  return html`<div class="pair"><div><h3>Plans that were measured</h3>${tradeOff(evidence)}</div><div><h3>Drift by position</h3>${drift(series, budget.maxKl)}</div></div>
${frontTables(evidence)}`;
}

function ablations({ ablations: found }: PlanEvidence): Markup {
  if (found.length === 0) return notMeasured('the plan was made without ablations');
  const highest = greatest([0, ...found.map(({ quality }) => quality.kl ?? 0)]) || 1;
  const rows = found.map(({ name, quality }) => [
    name,
    klText(quality),
    cellBar('bar', Math.max(0, quality.kl ?? 0) / highest),
    quality.perplexity === null ? '–' : quality.perplexity.toFixed(3),
    quality.top1 === null ? '–' : percent(quality.top1),
  ]);
  return html`<p class="note">As in the ablations of FFN Fusion, on all of the text.</p>${dataTable(['', 'KL', 'from 0', 'perplexity', 'top-1'], rows, [0, 2])}`;
}

function method({ model, data, cost, options, chosen }: PlanEvidence): Markup {
  const known = (...parts: readonly (string | null)[]): string | null => (parts.includes(null) ? null : parts.join(''));
  const positions = (quality: Figures | null): string | null =>
    quality?.positions == null ? null : count(quality.positions);
  const rows: readonly (readonly [string, string | null])[] = [
    [
      'model',
      [
        model.file,
        ...(model.bytes === null ? [] : [sizeText(model.bytes)]),
        `sha256 ${model.sha256.slice(0, 16) || 'unknown'}…`,
      ].join(', '),
    ],
    ['text', data.source],
    ['positions', known(positions(chosen.quality), ' searched on, ', positions(chosen.check), ' checked on')],
    ['perplexity of the original', data.originalPerplexity === null ? null : data.originalPerplexity.toFixed(3)],
    ['FFNs at the end of a run that stay apart', options.keepLast === null ? null : String(options.keepLast)],
    ['optimized for', GOALS[options.optimizeFor]],
    ['cost model', known(cost.name, ': weight bytes over bandwidth, plus a cost per attention, FFN and linear map')],
    [
      'bandwidth',
      cost.bytesPerSecond === null
        ? null
        : `${figure(cost.bytesPerSecond / 1e9)} GB/s${cost.ranks !== null && cost.ranks > 1 ? ` × ${cost.ranks}` : ''}`,
    ],
    ['cost of an attention', cost.secondsPerAttention === null ? null : duration(cost.secondsPerAttention)],
    ['cost of an FFN', cost.secondsPerFfn === null ? null : duration(cost.secondsPerFfn)],
    ['cost of a linear map', cost.secondsPerLinear === null ? null : duration(cost.secondsPerLinear)],
    ['constants from', cost.source],
    ...(cost.disturbed === null ? [] : [['to be doubted', cost.disturbed] as const]),
  ];
  return html`<dl class="plain">${rows.map(([name, value]) => html`<dt>${name}</dt><dd>${value ?? html`<span class="absent">not in the file</span>`}</dd>`)}</dl>
<p class="note">Every figure on this page is measured, except the speeds that are called predicted.</p>`;
}
