/** All passes, by id. A frozen literal: adding a pass is adding a line. */

import type { Pass } from './framework/pass.js';
import { annotateTensorParallel } from './transforms/annotate-tensor-parallel.js';
import { concatAttention } from './transforms/concat-attention/index.js';
import { concatFfn } from './transforms/concat-ffn.js';
import { concatLinear } from './transforms/concat-linear.js';
import { dropDead } from './transforms/drop-dead.js';
import { inlineFunctions } from './transforms/inline-functions.js';
import { instrument } from './transforms/instrument.js';
import { linearize } from './transforms/linearize.js';
import { parallelizeBlocks } from './transforms/parallelize-blocks.js';
import { parallelizeFfn } from './transforms/parallelize-ffn.js';
import { removeAttention } from './transforms/remove-attention.js';
import { removeFfn } from './transforms/remove-ffn.js';
import { renameKv } from './transforms/rename-kv.js';
import { requantizeFfn } from './transforms/requantize-ffn.js';
import { shardTensorParallel } from './transforms/shard-tensor-parallel/index.js';
import { stripMetadata } from './transforms/strip-metadata.js';

const ALL = [
  inlineFunctions,
  removeAttention,
  removeFfn,
  linearize,
  parallelizeBlocks,
  parallelizeFfn,
  requantizeFfn,
  concatFfn,
  concatLinear,
  concatAttention,
  renameKv,
  stripMetadata,
  dropDead,
  instrument,
  shardTensorParallel,
  annotateTensorParallel,
] as unknown as readonly Pass[];

/** Our passes, by id. A new pass gets a line here. */
export const registry: ReadonlyMap<string, Pass> = new Map(ALL.map((pass) => [pass.id, pass]));
