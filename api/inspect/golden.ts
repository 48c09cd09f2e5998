/** Golden files of models: the printed graph with hashes for weights, and how two of them differ. */

import { createTwoFilesPatch } from 'diff';
import { closeSources, type Model, printModel, weightDigest } from '../../ir/index.js';
import { counted } from '../../ir/visible.js';
import { VERSION_KEY } from '../fuse/provenance.js';

const HEAD =
  '# Written by onnx-fuse golden: a tensor above 64 bytes is shown as the SHA-256 of its elements, and no version of onnx-fuse.\n';
/** Another version that writes the same model is no difference. */
const VERSION = new RegExp(`("${VERSION_KEY.replaceAll('.', '\\.')}": )"[^"]*"`);
const MOST_LINES = 500;
/** Beyond this, finding the shortest diff takes longer than anybody waits. */
const PATIENCE_MS = 10_000;

/**
 * The text that stands for a model in a regression test: its graph in ONNX text, tensors above 64 bytes as type, shape
 * and SHA-256. It depends on neither the path nor on how the file stores its weights, nor on which version of onnx-fuse wrote
 * the model last; it reads every weight once, in bands, so memory is bounded.
 */
export function goldenText(model: Model): string {
  try {
    return HEAD + printModel(model, { digest: weightDigest() }).replace(VERSION, '$1"*"');
  } finally {
    closeSources();
  }
}

/** A unified diff of two golden texts, cut to 500 lines; null when they are equal. */
export function goldenDiff(expected: string, found: string): string | null {
  if (expected === found) return null;
  const options = { context: 3, timeout: PATIENCE_MS };
  const patch = createTwoFilesPatch('expected', 'found', expected, found, '', '', options);
  if (patch === undefined) return 'the texts have little in common: no diff was found in ten seconds';
  // The first line is a rule above the names.
  const lines = patch.trimEnd().split('\n').slice(1);
  if (lines.length <= MOST_LINES) return lines.join('\n');
  return [...lines.slice(0, MOST_LINES), `... and ${counted(lines.length - MOST_LINES, 'more line')}`].join('\n');
}
