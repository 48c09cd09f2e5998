/** The report of `onnx-fuse shard` as text. */

import { join } from 'node:path';
import { sizeText } from '../../api/basics/byte-size.js';
import type { ShardReport } from '../../api/shard/shard.js';
import { counted } from '../../ir/visible.js';
import { layersText } from '../../passes/index.js';
import { withFlags } from './flags.js';
import { table } from './table.js';

/** What `onnx-fuse shard` prints. */
export function renderShards(report: ShardReport, output: string): string {
  const { ranks, rankFiles, original, token, branches, check, skipped } = report;
  const rows = rankFiles.map(({ rank, model, weights }) => [
    String(rank),
    join(output, model),
    sizeText(weights.sharded),
    sizeText(weights.replicated),
    weights.padding > 0 ? sizeText(weights.padding) : '-',
  ]);
  const lines = [
    `${original.file}, ${sizeText(original.weightBytes)} of weights, for ${ranks} ranks (collectives: ${report.style})`,
    '',
    table(['rank', 'model', 'shares', 'replicated', 'zeros'], rows),
    '',
    ...(['attention', 'ffn'] as const).map((role) => roleText(report, role)),
    `vocabulary: ${report.cutsVocabulary ? 'cut, the logits are gathered' : `replicated: ${report.vocabularyReason}`}`,
    `each token: ${counted(token.allReduces, 'all-reduce')}, ${counted(token.allGathers, 'all-gather')}, ${sizeText(token.wireBytes)} sent by a rank; it reads ${sizeText(token.weightBytes)} of weights`,
  ];
  if (token.seconds !== null) {
    lines.push(
      `predicted for ${token.device}, not measured: ${(1e3 * token.seconds).toFixed(2)} ms a token at batch 1`,
    );
  }
  const reasons = new Map<string, string[]>();
  for (const { reason, layer, role } of branches) {
    if (reason === null) continue;
    const key = `${role === 'attention' ? 'attention' : 'FFN'} replicated: ${reason}`;
    reasons.set(key, [...(reasons.get(key) ?? []), layer]);
  }
  for (const [reason, layers] of reasons) lines.push(`${layersText(layers)}: ${withFlags(reason)}`);
  lines.push(
    check
      ? `ranks together against the original: ${check.maxRelative.toExponential(1)} of at most ${check.tolerance} (${check.precision}), ${counted(check.positions, 'position')}`
      : `not checked: ${withFlags(skipped ?? '')}`,
    ...(check?.notes ?? []),
  );
  return lines.join('\n');
}

function roleText({ branches }: ShardReport, role: 'attention' | 'ffn'): string {
  const all = branches.filter((branch) => branch.role === role);
  const cut = all.filter(({ reason }) => reason === null);
  const heads = cut.find((branch) => branch.heads !== null);
  const note = heads
    ? ` (${counted(heads.heads ?? 0, 'head')}, ${heads.kvHeads ?? heads.heads} for keys and values)`
    : '';
  return `${role === 'attention' ? 'attention' : 'FFN'}: ${cut.length} of ${all.length} cut${note}`;
}
