/** Inputs of golden files with the one change that matters. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { openModelBytes, referenceBytes } from '../../../ir/disk/model.js';
import { parseModel } from '../../../ir/text/index.js';
import { type PipelineResult, parsePipeline, registry, runPipeline } from '../../../passes/index.js';
import { ROOT } from '../../helpers/paths.js';
import { endless } from './bases.js';
import { checkModel } from './check.js';

/** The input of a golden file with some of its text replaced. */
export function edited(golden: string, ...edits: readonly (readonly [from: string, to: string])[]): Uint8Array {
  let text = /^== input\n([\s\S]*?)^== /m.exec(readFileSync(join(ROOT, 'golden', golden), 'utf8'))?.[1] ?? '';
  for (const [from, to] of edits) {
    assert.ok(text.includes(from), `${golden} has no '${from}'`);
    text = text.replace(from, to);
  }
  return referenceBytes(parseModel(text, { resolve: endless }), '.');
}

/** What a pipeline did to a model; everything else must go through without an error that is none of the user's. */
export function resultOf(bytes: Uint8Array, pipeline: string): PipelineResult {
  checkModel(bytes, '.');
  return runPipeline(openModelBytes(bytes, '.'), parsePipeline(pipeline, registry));
}

export function remarksOf(bytes: Uint8Array, pipeline: string): string[] {
  return resultOf(bytes, pipeline).remarks.map(({ kind, message }) => `${kind} ${message}`);
}
