/** The command line: arguments in, text and exit code out. 0 done, 1 model or check problem, 2 usage. */
import { packageVersion } from '../api/basics/package-version.js';
import { Diagnostic, errors } from '../ir/diagnostic.js';
import { visibleLines } from '../ir/visible.js';
import type { ArgumentsOf, CommandSpec } from './options/spec.js';

/** A command: what it takes, and what it does, each loaded when it is needed. */
interface Command {
  readonly name: string;
  spec(): Promise<CommandSpec>;
  run(values: object): Promise<number>;
}

function command<S extends CommandSpec>(
  name: string,
  spec: () => Promise<S>,
  load: () => Promise<(values: ArgumentsOf<S>) => Promise<number>>,
): Command {
  return { name, spec, run: async (values) => (await load())(values as ArgumentsOf<S>) };
}

/** `onnx-fuse in.onnx out.onnx` */
const MAIN = command(
  '',
  async () => (await import('./options/fuse.js')).fuseSpec,
  async () => (await import('./commands/fuse.js')).fuseCommand,
);
/** Every command, in the order of the help. A command is a file of its own, and one that says what it takes. */
const COMMANDS: readonly Command[] = [
  MAIN,
  command(
    'plan',
    async () => (await import('./options/plan.js')).planSpec,
    async () => (await import('./commands/plan.js')).planCommand,
  ),
  command(
    'inspect',
    async () => (await import('./options/inspect.js')).inspectSpec,
    async () => (await import('./commands/inspect.js')).inspectCommand,
  ),
  command(
    'print',
    async () => (await import('./options/print.js')).printSpec,
    async () => (await import('./commands/print.js')).printCommand,
  ),
  command(
    'verify',
    async () => (await import('./options/verify.js')).verifySpec,
    async () => (await import('./commands/verify.js')).verifyCommand,
  ),
  command(
    'shard',
    async () => (await import('./options/shard.js')).shardSpec,
    async () => (await import('./commands/shard.js')).shardCommand,
  ),
  command(
    'bench',
    async () => (await import('./options/bench.js')).benchSpec,
    async () => (await import('./commands/bench.js')).benchCommand,
  ),
  command(
    'pack',
    async () => (await import('./options/pack.js')).packSpec,
    async () => (await import('./commands/pack.js')).packCommand,
  ),
  command(
    'report',
    async () => (await import('./options/report.js')).reportSpec,
    async () => (await import('./commands/report.js')).reportCommand,
  ),
  command(
    'golden',
    async () => (await import('./options/golden.js')).goldenSpec,
    async () => (await import('./commands/golden.js')).goldenCommand,
  ),
  command(
    'passes',
    async () => (await import('./options/passes.js')).passesSpec,
    async () => (await import('./commands/passes.js')).passesCommand,
  ),
];

/** Runs the command line; returns the exit code. Never throws, never calls process.exit. */
export async function main(argv: readonly string[]): Promise<number> {
  let [json, command]: [string | undefined, string] = [undefined, ''];
  try {
    const named = COMMANDS.find(({ name }) => name !== '' && name === argv[0]);
    const { spec: specOf, run, name } = named ?? MAIN;
    command = name;
    // Who asks is told, whatever else is wrong.
    if (argv.includes('--version')) return say(await packageVersion());
    const { helpOf, parseArguments } = await import('./options/parse.js');
    const spec = await specOf();
    if (argv.includes('--help')) {
      return say(helpOf(spec, named ? [] : await Promise.all(COMMANDS.map((each) => each.spec()))));
    }
    const values = parseArguments(spec, named ? argv.slice(1) : argv) as Readonly<Record<string, unknown>>;
    const asked = values['json'] as string | undefined;
    // Nothing is written, not even that it failed, where nothing may be written.
    if (asked !== undefined) await checkJson(asked, spec, values);
    json = asked;
    return await run(values);
  } catch (error) {
    if (error instanceof Diagnostic && json !== undefined) {
      const { giveFailure } = await import('./commands/command.js');
      await giveFailure(command === '' ? 'fuse' : command, error, json);
    }
    return explain(error);
  }
}

/** Where JSON goes is checked before the work. @throws Diagnostic OF_WRITE, OF_USAGE. */
async function checkJson(
  json: string,
  { words }: CommandSpec,
  values: Readonly<Record<string, unknown>>,
): Promise<void> {
  if (json === '-') return;
  const { checkTarget } = await import('../api/basics/targets.js');
  checkTarget(
    json,
    words.map(({ name }) => values[name] as string | undefined),
  );
  // Weights, which a model's file may name, are never called so.
  if (!json.endsWith('.json')) throw errors.usage('--json', `'${json}' does not end in .json`, 'call it so');
}

async function say(text: string | Promise<string>): Promise<number> {
  process.stdout.write(`${await text}\n`);
  return 0;
}

async function explain(error: unknown): Promise<number> {
  if (error instanceof Diagnostic) {
    const { EXIT_CODES, renderDiagnostic } = await import('./text/diagnostic.js');
    process.stderr.write(renderDiagnostic(error));
    return EXIT_CODES[error.kind];
  }
  // Not a user's mistake: a bug of ours, so the stack is what we need to see.
  process.stderr.write(
    `onnx-fuse: internal error, please report it\n${visibleLines(String(error instanceof Error ? error.stack : error))}\n`,
  );
  return 1;
}
