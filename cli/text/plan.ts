/** A plan as text a person can read. */

import { isSameChoice, type PlanFile, type PlanPoint, planText, type SearchedPoint } from '../../api/plan/plan-file.js';
import { counted } from '../../ir/visible.js';
import { printLayers, printRun } from '../../passes/index.js';
import { costsFor } from '../../runtime/choose/cost.js';
import { applyingCommand } from './command-line.js';
import { cautions, percent, secondsText } from './figures.js';
import { table } from './table.js';

/** What `onnx-fuse plan` prints. */
export function renderPlan(plan: PlanFile, path: string, command = applyingCommand(plan.model.file, path)): string {
  const { chosen, cost, data, budget, options } = plan;
  const isForPrompts = options.optimizeFor === 'prompt';
  const costs = costsFor(options.optimizeFor, cost);
  const limits = [
    ...(budget.maxKl === null ? [] : [`KL at most ${budget.maxKl}`]),
    ...(budget.maxPerplexityIncrease === null ? [] : [`perplexity at most +${percent(budget.maxPerplexityIncrease)}`]),
    ...(budget.minTop1 === null ? [] : [`top-1 at least ${percent(budget.minTop1)}`]),
  ];
  const isNothing = planText(chosen) === 'change nothing';
  const lines = [
    `plan: ${planText(chosen)}`,
    asked(plan, limits),
    '',
    table(
      ['', 'positions', 'KL', 'largest', 'perplexity', 'increase', 'top-1', 'top-5'],
      [
        qualityRow('searched on', chosen.quality),
        qualityRow('checked on', chosen.check),
        ...(chosen.removed ? [qualityRow('the same without maps', chosen.removed)] : []),
      ],
    ),
    ...cautions(chosen.check.positions),
    '',
    `predicted: ${secondsText(cost.originalSeconds)} ${isForPrompts ? 'a prompt of 128' : 'a token'} -> ${secondsText(chosen.predictedSeconds)}, ` +
      `${chosen.predictedSpeedup.toFixed(3)} times as fast (a prediction)`,
    ...measuredLines(plan),
    `on ${cost.name}: ${(costs.bytesPerSecond / 1e9).toFixed(1)} GB/s x ${cost.ranks}, ` +
      `${secondsText(costs.secondsPerAttention)} an attention, ${secondsText(costs.secondsPerFfn)} an FFN, ` +
      `${secondsText(costs.secondsPerLinear)} a linear map; ${cost.source}`,
    ...(cost.disturbed === null ? [] : [`to be doubted: ${cost.disturbed}`]),
    `text: ${data.source}; ${counted(data.fitted, 'position')} to fit maps on, ${data.searched} to search on, ${data.checked} to check on` +
      `${data.heldOut === null ? '' : ` (${data.heldOut})`}, where the original has perplexity ${data.originalPerplexity.toFixed(3)}`,
  ];
  if (plan.evaluated.length === 0) {
    lines.push('', 'nothing could be measured: no attention can go, and no FFNs follow one another without one');
  } else if (isNothing && plan.objective.kind === 'best') {
    lines.push(
      '',
      `no plan that was measured is as fast as was asked for${limits.length > 0 ? ' and within the budget' : ''}`,
    );
  } else if (isNothing && limits.length > 0) lines.push('', 'no plan that was measured stays within the budget');
  lines.push(...passedOverLines(plan));
  if (plan.front.length > 1) {
    lines.push(
      '',
      `the best of ${counted(plan.evaluated.length, 'plan')} measured, beside the model as it is, KL where they were searched on:`,
      table(
        ['', 'speed', 'KL', 'top-1', 'attention mapped', 'removed', 'FFN mapped', 'removed', 'FFN runs', 'maps fitted'],
        plan.front.map((point) => frontRow(point, chosen)),
      ),
    );
  }
  if (plan.random) {
    const worse = plan.random.kl.filter((kl) => kl > chosen.quality.kl).length;
    const [least, median] = [Math.min(...plan.random.kl), middle(plan.random.kl)];
    lines.push(
      '',
      plan.random.count === 0
        ? 'there is no other plan of this size'
        : `${counted(plan.random.count, 'random plan')} of this size: ${worse} ${worse === 1 ? 'is' : 'are'} worse, KL ${least.toPrecision(3)} at best, ` +
            `${median.toPrecision(3)} in the middle; this one ${chosen.quality.kl.toPrecision(3)}`,
    );
  }
  if (plan.ablations) {
    lines.push(
      '',
      table(
        ['the same attentions removed', 'KL', 'perplexity', 'top-1'],
        plan.ablations.map(({ name, quality }) => [
          name,
          quality.kl.toPrecision(3),
          quality.perplexity.toFixed(3),
          percent(quality.top1),
        ]),
      ),
    );
  }
  lines.push(
    '',
    isNothing ? `written to ${path}, which changes nothing` : `written to ${path}; apply it with: ${command}`,
  );
  return lines.join('\n');
}

function qualityRow(name: string, quality: PlanPoint['quality']): string[] {
  return [
    name,
    String(quality.positions),
    quality.kl.toPrecision(3),
    quality.maxKl.toPrecision(3),
    quality.perplexity.toFixed(3),
    percent(quality.perplexityIncrease),
    percent(quality.top1),
    percent(quality.top5),
  ];
}

function frontRow(point: SearchedPoint, chosen: PlanPoint): string[] {
  const list = (layers: readonly number[]): string => (layers.length > 0 ? printLayers(layers) : '-');
  return [
    isSameChoice(point, chosen) && point.quality.kl === chosen.quality.kl ? '*' : '',
    point.predictedSpeedup.toFixed(3),
    point.quality.kl.toPrecision(3),
    percent(point.quality.top1),
    list(point.linearizeAttention),
    list(point.removeAttention),
    list(point.linearizeFfn),
    list(point.removeFfn),
    point.runs.map(printRun).join(', ') || '-',
    point.maps === 'none' ? '-' : point.maps,
  ];
}

/** Plans of which so many are named. */
const MOST_PASSED_OVER = 3;

/** Why better plans than the chosen one were not chosen. */
function passedOverLines({ passedOver }: PlanFile): string[] {
  const lines = passedOver
    .slice(0, MOST_PASSED_OVER)
    .map(
      ({ predictedSpeedup, quality, check }) =>
        `  ${predictedSpeedup.toFixed(3)} times as fast: KL ${quality.kl.toPrecision(3)} where it was searched on, ` +
        `${check.kl.toPrecision(3)} where it was checked`,
    );
  const more = passedOver.length - lines.length;
  if (more > 0) lines.push(`  and ${counted(more, 'more plan')}`);
  return lines.length === 0 ? [] : ['', 'passed over, because it was over the budget where it was checked:', ...lines];
}

/** The measured speed beside the predicted one. */
function measuredLines({ measured, chosen, options }: PlanFile): string[] {
  if (!measured) return [];
  const { runtime, prompt } = measured;
  if (options.optimizeFor === 'prompt' && prompt) {
    const { original, changed, speedup } = prompt;
    const off = Math.abs(chosen.predictedSpeedup / speedup - 1);
    return [
      `measured:  ${secondsText(original)} a prompt of 128 -> ${secondsText(changed)}, ${speedup.toFixed(3)} times as fast; the prediction is off by ${percent(off)}`,
    ];
  }
  const { original, changed, speedup, quartiles } = measured;
  const off = Math.abs(chosen.predictedSpeedup / speedup - 1);
  return [
    `measured:  ${secondsText(original)} a token -> ${secondsText(changed)}, ${speedup.toFixed(3)} times as fast ` +
      `(${quartiles.map((each) => each.toFixed(3)).join(' to ')}) in ${runtime}; the prediction is off by ${percent(off)}`,
  ];
}

/** What was to be fast, where that was said. */
const GOALS = { decode: '; optimized for decoding', prompt: '; optimized for prompts', both: '' } as const;

/** What was asked for. */
function asked({ objective, options }: PlanFile, limits: readonly string[]): string {
  const goal = GOALS[options.optimizeFor];
  if (objective.kind === 'best') {
    return `asked for: the best plan that is predicted to be ${objective.speedup} times as fast${limits.map((limit) => `, ${limit}`).join('')}${goal}`;
  }
  return `budget: ${limits.join(', ') || 'none (the attentions were given)'}${goal}`;
}

function middle(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
