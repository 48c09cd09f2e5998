/** The command line: arguments in, text and exit code out. 0 done, 1 model or check problem, 2 usage. */
import { packageVersion } from '../api/basics/package-version.js';
import { Diagnostic } from '../ir/diagnostic.js';
import { visibleLines } from '../ir/visible.js';
import type { Outcome } from './commands/results.js';
import type { ArgumentsOf, CommandSpec } from './options/spec.js';

/** A command: what it takes, and what it does, each loaded when it is needed. */
interface Command {
  readonly name: string;
  spec(): Promise<CommandSpec>;
  run(values: object): Promise<Outcome>;
}

function command<S extends CommandSpec>(
  name: string,
  spec: () => Promise<S>,
  load: () => Promise<(values: ArgumentsOf<S>) => Promise<Outcome>>,
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
  command(
    'run',
    async () => (await import('./options/run.js')).runSpec,
    async () => {
      const { runCommand } = await import('./commands/run.js');
      return (values) =>
        runCommand(
          values,
          COMMANDS.filter(({ name }) => name !== 'run'),
        );
    },
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
    const words = named ? argv.slice(1) : argv;
    const configured = words.some(isConfig) ? await configuredIn(words, spec) : {};
    const values = parseArguments(spec, words, configured) as Readonly<Record<string, unknown>>;
    const asked = values['json'] as string | undefined;
    const { checkJson, give } = await import('./commands/command.js');
    // Nothing is written, not even that it failed, where nothing may be written.
    if (asked !== undefined) checkJson(asked, readsOf(spec, values));
    json = asked;
    return await give(await run(values), json);
  } catch (error) {
    if (error instanceof Diagnostic && json !== undefined) {
      const { failureFor, putJson } = await import('./commands/command.js');
      await putJson(failureFor(command === '' ? 'fuse' : command, error), json);
    }
    return explain(error);
  }
}

const isConfig = (word: string): boolean => word.startsWith('--config');

/** What the file that `--config` names says. @throws Diagnostic OF_CONFIG. */
async function configuredIn(argv: readonly string[], spec: CommandSpec): Promise<Readonly<Record<string, unknown>>> {
  const { configIn, configuredFlags } = await import('./options/config.js');
  const file = configIn(spec, argv);
  return file === undefined ? {} : configuredFlags(file, spec);
}

/** What JSON takes no place of. */
function readsOf({ words }: CommandSpec, values: Readonly<Record<string, unknown>>): (string | undefined)[] {
  return [...words.map(({ name }) => name), 'config', 'calibrate'].map((name) => values[name] as string | undefined);
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
