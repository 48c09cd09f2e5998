/** All passes, by id. A frozen literal: adding a pass is adding a line. */
import { annotateTensorParallel } from './annotate-tensor-parallel.js';
import { concatAttention } from './concat-attention.js';
import { concatFfn } from './concat-ffn.js';
import { dropDead } from './drop-dead.js';
import { inlineFunctions } from './inline-functions.js';
import { instrument } from './instrument.js';
import { parallelizeBlocks } from './parallelize-blocks.js';
import { parallelizeFfn } from './parallelize-ffn.js';
import type { Pass } from './pass.js';
import { removeAttention } from './remove-attention.js';
import { removeFfn } from './remove-ffn.js';
import { renameKv } from './rename-kv.js';
import { requantizeFfn } from './requantize-ffn.js';
import { shardTensorParallel } from './shard-tensor-parallel.js';

const ALL = [
  inlineFunctions,
  removeAttention,
  removeFfn,
  parallelizeBlocks,
  parallelizeFfn,
  requantizeFfn,
  concatFfn,
  concatAttention,
  renameKv,
  dropDead,
  instrument,
  shardTensorParallel,
  annotateTensorParallel,
] as unknown as readonly Pass[];

export const registry: ReadonlyMap<string, Pass> = new Map(ALL.map((pass) => [pass.id, pass]));
