/** `onnx-fuse inspect model.onnx --html layers.html` */
import { inspect } from '../../api/commands/model.js';
import type { Inspection } from '../../api/inspect/inspect.js';
import { errors } from '../../ir/index.js';
import type { inspectSpec } from '../options/inspect.js';
import type { ArgumentsOf } from '../options/spec.js';
import { renderInspection } from '../text/inspection.js';
import type { Outcome } from './results.js';

export async function inspectCommand(args: ArgumentsOf<typeof inspectSpec>): Promise<Outcome> {
  const { model, html } = args;
  if (html === undefined) return { kind: 'inspection', result: inspect(model), render: renderInspection };
  // Weights, which a model's file may name, are never called so.
  if (!/\.html?$/.test(html)) throw errors.usage('--html', `'${html}' does not end in .html`, 'call it so');
  const [{ inspectionPage }, { planningCommand, sharedPath }, { withFlags }] = await Promise.all([
    import('../../api/commands/inspection-page.js'),
    import('../text/command-line.js'),
    import('../text/flags.js'),
  ]);
  const next = planningCommand(sharedPath(model));
  await inspectionPage({ model, worded: withFlags, next, output: html });
  const render = (shown: Inspection): string => `${renderInspection(shown)}\n\ndrawn in ${html}`;
  return { kind: 'inspection', result: inspect(model), render };
}
