/** The command line: arguments in, text and exit code out. 0 done, 1 model or check problem, 2 usage. */
import yargs from 'yargs';
import { Diagnostic, errors, visibleLines } from '../ir/index.js';
import { benchCommand } from './commands/bench.js';
import type { Cli, Runner } from './commands/command.js';
import { fuseCommand } from './commands/fuse.js';
import { goldenCommand } from './commands/golden.js';
import { inspectCommand } from './commands/inspect.js';
import { passesCommand } from './commands/passes.js';
import { planCommand } from './commands/plan.js';
import { printCommand } from './commands/print.js';
import { reportCommand } from './commands/report.js';
import { shardCommand } from './commands/shard.js';
import { verifyCommand } from './commands/verify.js';
import { EXIT_CODES, renderDiagnostic } from './text/diagnostic.js';

/** Every command, in the order of the help. A command is a file of its own. */
const COMMANDS = [
  fuseCommand,
  planCommand,
  inspectCommand,
  printCommand,
  verifyCommand,
  shardCommand,
  benchCommand,
  reportCommand,
  goldenCommand,
  passesCommand,
];

/** Runs the command line; returns the exit code. Never throws, never calls process.exit. */
export async function main(argv: readonly string[]): Promise<number> {
  let code = 0;
  const run: Runner = async (work) => {
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
    process.stderr.write(renderDiagnostic(error));
    return EXIT_CODES[error.kind];
  }
  // Not a user's mistake: a bug of ours, so the stack is what we need to see.
  process.stderr.write(
    `onnx-fuse: internal error, please report it\n${visibleLines(String(error instanceof Error ? error.stack : error))}\n`,
  );
  return 1;
}

function parser(argv: readonly string[], run: Runner): Cli {
  const cli = yargs([...argv])
    .scriptName('onnx-fuse')
    .locale('en')
    .usage(
      '$0 in.onnx out.onnx\n\nFuses attention-free runs of feed-forward layers (FFNs) of an ONNX decoder into wide ones.',
    )
    .parserConfiguration({ 'greedy-arrays': false, 'camel-case-expansion': false })
    .middleware(lastOnesWin, true)
    .strict()
    .wrap(110)
    .help()
    .version(false)
    .option('version', { type: 'boolean', describe: 'Print the version' })
    .exitProcess(false)
    .fail((message, error) => {
      // A YError is about the arguments, like a message without an error.
      if (error && error.name !== 'YError') throw error;
      throw errors.usage('', (message ?? error?.message ?? '').replace(/\s*\n\s*/g, ' '), 'see onnx-fuse --help');
    });
  for (const add of COMMANDS) add(cli, run);
  return cli;
}

/** Repeatable options; of any other that is given twice, the last one counts. */
const REPEATABLE = ['_', 'plugin'];

function lastOnesWin(args: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(args)) {
    if (Array.isArray(value) && !REPEATABLE.includes(name)) args[name] = value.at(-1);
  }
}
