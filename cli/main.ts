/** The command line: arguments in, text and exit code out. 0 done, 1 model or check problem, 2 usage. */
import { writeFileSync } from 'node:fs';
import yargs from 'yargs';
import { Diagnostic, errors, openModel, printModel, reasonOf } from '../ir/index.js';
import { registry } from '../passes/index.js';
import { verifyPair } from '../runtime/index.js';
import { fuse, packageVersion } from './driver.js';
import { inspectModel } from './inspect.js';
import { renderComparison, renderInspection, renderReport } from './render.js';
import { continueText } from './story.js';
import { silent, stderrTalk } from './talk.js';

/** Runs the command line; returns the exit code. Never throws, never calls process.exit. */
export async function main(argv: readonly string[]): Promise<number> {
  let code = 0;
  const run = (work: () => Promise<number | undefined>) => async (): Promise<void> => {
    code = (await work()) ?? 0;
  };
  try {
    await parser(argv, run).parseAsync();
    return code;
  } catch (error) {
    return explain(error);
  }
}

function explain(error: unknown): number {
  if (error instanceof Diagnostic) {
    process.stderr.write(`onnx-fuse: ${error.message}\n`);
    return error.kind === 'usage' ? 2 : 1;
  }
  // Not a user's mistake: a bug of ours, so the stack is what we need to see.
  process.stderr.write(
    `onnx-fuse: internal error, please report it\n${error instanceof Error ? error.stack : error}\n`,
  );
  return 1;
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

type Runner = (work: () => Promise<number | undefined>) => () => Promise<void>;

function parser(argv: readonly string[], run: Runner) {
  const cli = yargs([...argv])
    .scriptName('onnx-fuse')
    .locale('en')
    .usage(
      '$0 in.onnx out.onnx\n\nFuses attention-free runs of feed-forward layers (FFNs) of an ONNX decoder into wide ones.',
    )
    .parserConfiguration({ 'duplicate-arguments-array': false, 'camel-case-expansion': false })
    .strict()
    .wrap(110)
    .help()
    .version(false)
    .option('version', { type: 'boolean', describe: 'Print the version' })
    .exitProcess(false)
    .fail((message, error) => {
      throw error ?? errors.usage('', message, 'see onnx-fuse --help');
    });
  fuseCommand(cli, run);
  inspectCommand(cli, run);
  printCommand(cli, run);
  verifyCommand(cli, run);
  passesCommand(cli, run);
  return cli;
}

type Cli = ReturnType<typeof yargs>;

function fuseCommand(cli: Cli, run: Runner): void {
  cli.command(
    '$0 [input] [output]',
    'Fuse a model',
    (command) =>
      command
        .positional('input', { type: 'string', describe: 'The model, .onnx' })
        .positional('output', { type: 'string', describe: 'Where the fused model goes' })
        .option('remove-attention', { type: 'string', describe: 'Remove the attention of these layers first: 4-9,12' })
        .option('runs', { type: 'string', describe: 'Fuse exactly these runs: 42-50,53-69' })
        .option('keep-last', { type: 'number', describe: 'FFNs at the end of each run that stay as they are [1]' })
        .option('max-width', { type: 'number', describe: 'Widest fused FFN; longer runs are split [no limit]' })
        .option('lead', { type: 'boolean', describe: 'Also take the FFN just before each run, whose attention stays' })
        .option('norm', {
          choices: ['fold', 'last'] as const,
          describe: "Fold each FFN's own norm (exact), or use the last one's [fold]",
        })
        .option('pipeline', { type: 'string', describe: 'Run these passes instead; "" copies the model' })
        .option('verify', { type: 'boolean', default: true, describe: 'Check with onnxruntime before writing' })
        .option('force', { type: 'boolean', default: false, describe: 'Write even when the check fails' })
        .option('require-fusion', { type: 'boolean', default: false, describe: 'Exit 1 when nothing fuses' })
        .option('external', { type: 'boolean', describe: 'Weights in a data file beside the model [as the input]' })
        .option('dry-run', { type: 'boolean', default: false, describe: 'Say what would be done; write nothing' })
        .option('report', { type: 'string', describe: 'Write a JSON report here' })
        .option('prompt', { type: 'string', describe: 'Let a byte-level model continue this text, before and after' })
        .option('tokens', { type: 'number', default: 120, describe: 'Length of the continuation' })
        .option('quiet', { type: 'boolean', default: false, describe: 'Print nothing but errors' }),
    (args) =>
      run(async () => {
        if (args['version']) {
          say(await packageVersion());
          return 0;
        }
        const { input, output } = args;
        if (!input || !output) throw errors.usage('', 'an input and an output are needed', 'see onnx-fuse --help');
        const talk = args.quiet ? silent : stderrTalk();
        const report = await fuse({
          input,
          output,
          removeAttention: args['remove-attention'],
          runs: args.runs,
          keepLast: args['keep-last'],
          maxWidth: args['max-width'],
          lead: args.lead,
          norm: args.norm,
          pipeline: args.pipeline,
          verify: args.verify,
          force: args.force,
          dryRun: args['dry-run'],
          requireFusion: args['require-fusion'],
          external: args.external,
          hash: args.report !== undefined,
          talk,
        });
        if (args.report !== undefined) writeJson(args.report, report);
        if (!args.quiet) say(renderReport(report));
        if (args.prompt !== undefined && !args['dry-run']) {
          say(`\nbefore: ${args.prompt}${await continueText(input, args.prompt, args.tokens)}`);
          say(`\nafter:  ${args.prompt}${await continueText(output, args.prompt, args.tokens)}`);
        }
        return 0;
      })(),
  );
}

function writeJson(path: string, value: unknown): void {
  try {
    writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`);
  } catch (error) {
    throw errors.writeFailed(path, reasonOf(error));
  }
}

function inspectCommand(cli: Cli, run: Runner): void {
  cli.command(
    'inspect <model>',
    'Show every layer and what would fuse, or why not',
    (command) =>
      command
        .positional('model', { type: 'string', demandOption: true })
        .option('json', { type: 'boolean', default: false, describe: 'As JSON' }),
    (args) =>
      run(async () => {
        const inspection = inspectModel(openModel(args.model), args.model);
        say(args.json ? JSON.stringify(inspection, null, 2) : renderInspection(inspection));
        return 0;
      })(),
  );
}

function printCommand(cli: Cli, run: Runner): void {
  cli.command(
    'print <model>',
    'Print the model in ONNX textual syntax',
    (command) => command.positional('model', { type: 'string', demandOption: true }),
    (args) =>
      run(async () => {
        say(printModel(openModel(args.model)).trimEnd());
        return 0;
      })(),
  );
}

function verifyCommand(cli: Cli, run: Runner): void {
  cli.command(
    'verify <a> <b>',
    'Run both models with onnxruntime on the same inputs and compare',
    (command) =>
      command
        .positional('a', { type: 'string', demandOption: true, describe: 'The reference' })
        .positional('b', { type: 'string', demandOption: true, describe: 'The model to judge' })
        .option('tolerance', { type: 'number', describe: 'Exit 1 when the relative error is larger' })
        .option('json', { type: 'boolean', default: false, describe: 'As JSON' })
        .option('quiet', { type: 'boolean', default: false, describe: 'Print nothing but the result' }),
    (args) =>
      run(async () => {
        const talk = args.quiet ? silent : stderrTalk();
        const comparison = await verifyPair(
          { location: args.a, model: openModel(args.a) },
          { location: args.b, model: openModel(args.b) },
          { onRun: (done, total) => talk.progress('running', done, total) },
        );
        talk.done();
        say(args.json ? JSON.stringify(comparison, null, 2) : renderComparison(comparison));
        return args.tolerance !== undefined && !(comparison.worst.relative <= args.tolerance) ? 1 : 0;
      })(),
  );
}

function passesCommand(cli: Cli, run: Runner): void {
  cli.command('passes', 'List the passes and their options for --pipeline', {}, () =>
    run(async () => {
      for (const pass of registry.values()) {
        say(`${pass.id}  (${pass.effect})\n    ${pass.summary}`);
        for (const [name, spec] of Object.entries(pass.options)) say(`    ${name}: ${spec.help}`);
      }
      return 0;
    })(),
  );
}
