/**
 * Is what `plan` finds good on text that it has not seen? For every trained model of ../shared/models: a plan on the calibration text, the
 * changed file judged on the held-out text by `verify`, and random plans of as many changes of the same kinds on the text that was
 * searched on.
 *
 *     node dist/test/bench/proof.js [--only tales12-fp32] [--evaluations 60] [--random 20] [--json proof.json]
 */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type PlanFile, planText } from '../../api/plan/plan-file.js';
import { commandSpec } from '../../cli/options/spec.js';
import { table } from '../../cli/text/table.js';
import { findCorpus } from '../corpus/folder.js';
import { BIN } from '../helpers/paths.js';
import { argumentsFor } from './arguments.js';

interface Trained {
  readonly name: string;
  readonly file: string;
  readonly text: string;
  readonly length: number;
  readonly maxKl: number;
}

const TRAINED: readonly Trained[] = [
  {
    name: 'tales12-fp32',
    file: 'tales12/tales12-dynamo18-fp32.onnx',
    text: 'tales12/tales12',
    length: 192,
    maxKl: 0.05,
  },
  {
    name: 'tales12-fp16',
    file: 'tales12/tales12-dynamo18-fp16.onnx',
    text: 'tales12/tales12',
    length: 192,
    maxKl: 0.05,
  },
  {
    name: 'stories260K',
    file: 'torch/stories260K-dynamo18-kv.onnx',
    text: 'text/stories260K',
    length: 256,
    maxKl: 0.25,
  },
  {
    name: 'babyllama105',
    file: 'torch/babyllama105-ts17-eager.onnx',
    text: 'text/babyllama105',
    length: 256,
    maxKl: 0.25,
  },
];

interface Proof {
  readonly name: string;
  readonly maxKl: number;
  readonly commands: readonly string[];
  readonly plan: string;
  readonly evaluated: number;
  readonly predictedSpeedup: number;
  readonly searchedKl: number;
  readonly checkedKl: number;
  readonly heldOut: { kl: number; perplexityIncrease: number; top1: number; positions: number };
  /** On the text that `plan` searches on: the plan, and others of its size. */
  readonly random: { readonly kl: number; readonly others: readonly number[] };
  readonly ablations: PlanFile['ablations'];
}

const args = await argumentsFor(
  commandSpec({
    name: 'bench:proof',
    summary: 'What plans are worth on held-out text',
    words: [],
    flags: {
      only: { type: 'string', repeats: true, describe: '' },
      evaluations: { type: 'number', fallback: 60, describe: '' },
      random: { type: 'number', fallback: 20, describe: '' },
      'max-tokens': { type: 'number', fallback: 6144, describe: '' },
      json: { type: 'string', describe: '' },
    },
  }),
);

const MODELS_FOLDER = findCorpus();

const commands: string[] = [];

function run(...words: string[]): string {
  commands.push(`onnx-fuse ${words.join(' ').replaceAll(`${folder}/`, '').replaceAll(`${MODELS_FOLDER}/`, '')}`);
  const { status, stdout, stderr } = spawnSync(process.execPath, [BIN, ...words], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${commands.at(-1)} ended with ${status}: ${stderr}`);
  return stdout;
}

function prove({ name, file, text, length, maxKl }: Trained): Proof {
  commands.length = 0;
  const model = join(MODELS_FOLDER, file);
  const [calib, heldOut] = ['calib', 'heldout'].map((part) => join(MODELS_FOLDER, `${text}.${part}.jsonl`)) as [
    string,
    string,
  ];
  const at = (file: string): string => join(folder, `${name}.${file}`);
  const data = ['--length', String(length), '--max-tokens', String(args['max-tokens']), '--quiet'];
  const search = ['--max-kl', String(maxKl), '--max-evaluations', String(args.evaluations), '--ablate'];
  run('plan', model, '-o', at('plan.json'), '--data', calib, ...search, '--random', String(args.random), ...data);
  const plan = JSON.parse(readFileSync(at('plan.json'), 'utf8')) as PlanFile;
  const { chosen } = plan;
  if (chosen.predictedSpeedup <= 1) throw new Error(`${name}: no plan within the budget`);
  run(model, at('fused.onnx'), '--plan', at('plan.json'), '--quiet');
  const limit = ['--max-kl', String(maxKl), '--json'];
  const verified = JSON.parse(run('verify', model, at('fused.onnx'), '--data', heldOut, ...limit, ...data)) as {
    text: { quality: Proof['heldOut'] };
  };
  const { kl, perplexityIncrease, top1, positions } = verified.text.quality;
  return {
    name,
    maxKl,
    commands: [...commands],
    plan: planText(chosen),
    evaluated: plan.evaluated.length,
    predictedSpeedup: chosen.predictedSpeedup,
    searchedKl: chosen.quality.kl,
    checkedKl: chosen.check.kl,
    heldOut: { kl, perplexityIncrease, top1, positions },
    random: { kl: chosen.quality.kl, others: plan.random?.kl ?? [] },
    ablations: plan.ablations,
  };
}

const folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-proof-'));
try {
  const proofs: Proof[] = [];
  for (const trained of TRAINED) {
    if (args.only && !args.only.includes(trained.name)) continue;
    const proof = prove(trained);
    proofs.push(proof);
    console.error(`${proof.name}: ${proof.plan}`);
    if (args.json !== undefined) writeFileSync(args.json, `${JSON.stringify(proofs, withoutPositions, 2)}\n`);
  }
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  console.log(
    table(
      [
        'model',
        'budget',
        'plan',
        'searched',
        'checked',
        'held out',
        'top-1',
        'perplexity',
        'worse at random',
        'their best',
      ],
      proofs.map(({ name, maxKl, plan, searchedKl, checkedKl, heldOut, random }) => [
        name,
        String(maxKl),
        plan,
        searchedKl.toPrecision(3),
        checkedKl.toPrecision(3),
        heldOut.kl.toPrecision(3),
        percent(heldOut.top1),
        `+${percent(heldOut.perplexityIncrease)}`,
        `${random.others.filter((kl) => kl > random.kl).length} of ${random.others.length} (KL > ${random.kl.toPrecision(3)})`,
        random.others.length > 0 ? Math.min(...random.others).toPrecision(3) : '-',
      ]),
    ),
  );
} finally {
  rmSync(folder, { recursive: true });
}

/** Figures of every position would be most of the file. */
function withoutPositions(key: string, value: unknown): unknown {
  return key.endsWith('ByPosition') ? undefined : value;
}
