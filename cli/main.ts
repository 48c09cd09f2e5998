/** The command line: arguments in, text and exit code out. 0 done, 1 model or check problem, 2 usage. */
import { packageVersion } from '../api/basics/package-version.js';
import { Diagnostic, errors } from '../ir/diagnostic.js';
import { visibleLines } from '../ir/visible.js';
import type { Outcome } from './commands/results.js';
import type { ArgumentsOf, CommandSpec } from './options/spec.js';

/** A command: what it takes, and what it does, each loaded when it is needed. */
interface Command {
  readonly name: string;
  spec(): Promise<CommandSpec>;
  /** What it found out; null where it has said so itself. */
  run(values: object): Promise<Outcome | null>;
}

type Specs = typeof import('./specs.js');

function command<S extends CommandSpec>(
  name: string,
  specIn: (specs: Specs) => S,
  load: () => Promise<(values: ArgumentsOf<S>) => Promise<Outcome | null>>,
): Command {
  const spec = async (): Promise<S> => specIn(await import('./specs.js'));
  return { name, spec, run: async (values) => (await load())(values as ArgumentsOf<S>) };
}

/** `onnx-fuse in.onnx out.onnx` */
const MAIN = command(
  '',
  (specs) => specs.fuseSpec,
  async () => (await import('./commands/fuse.js')).fuseCommand,
);
/** Every command, in the order of the help. A command is a file of its own, and one that says what it takes. */
const COMMANDS: readonly Command[] = [
  MAIN,
  command(
    'plan',
    (specs) => specs.planSpec,
    async () => (await import('./commands/plan.js')).planCommand,
  ),
  command(
    'inspect',
    (specs) => specs.inspectSpec,
    async () => (await import('./commands/inspect.js')).inspectCommand,
  ),
  command(
    'print',
    (specs) => specs.printSpec,
    async () => (await import('./commands/print.js')).printCommand,
  ),
  command(
    'verify',
    (specs) => specs.verifySpec,
    async () => (await import('./commands/verify.js')).verifyCommand,
  ),
  command(
    'shard',
    (specs) => specs.shardSpec,
    async () => (await import('./commands/shard.js')).shardCommand,
  ),
  command(
    'bench',
    (specs) => specs.benchSpec,
    async () => (await import('./commands/bench.js')).benchCommand,
  ),
  command(
    'pack',
    (specs) => specs.packSpec,
    async () => (await import('./commands/pack.js')).packCommand,
  ),
  command(
    'report',
    (specs) => specs.reportSpec,
    async () => (await import('./commands/report.js')).reportCommand,
  ),
  command(
    'golden',
    (specs) => specs.goldenSpec,
    async () => (await import('./commands/golden.js')).goldenCommand,
  ),
  command(
    'passes',
    (specs) => specs.passesSpec,
    async () => (await import('./commands/passes.js')).passesCommand,
  ),
  command(
    'run',
    (specs) => specs.runSpec,
    async () => {
      const { runCommand } = await import('./commands/run.js');
      return (values) =>
        runCommand(
          values,
          COMMANDS.filter(({ name }) => !NOT_RUN.includes(name)),
        );
    },
  ),
  command(
    'env',
    (specs) => specs.envSpec,
    async () => (await import('./commands/env.js')).envCommand,
  ),
  command(
    'completion',
    (specs) => specs.completionSpec,
    async () => completion,
  ),
  command(
    'help',
    (specs) => specs.helpSpec,
    async () =>
      async ({ command: name }) => {
        await help(name);
        return null;
      },
  ),
];

/** What a list of commands may not name: lists, and what only speaks to a person. */
const NOT_RUN = ['run', 'completion', 'help'];

/** How a person asks what this is, and which version of it. */
const ASKS = { help: ['--help', '-h'], version: ['--version', '-v'] } as const;
/** The word in front of a line that a shell wants to complete; the script that yargs makes for it says so. */
const TO_COMPLETE = '--get-yargs-completions';

/** Runs the command line; returns the exit code. Never throws, never calls process.exit. */
export async function main(argv: readonly string[]): Promise<number> {
  let [json, command]: [string | undefined, string] = [undefined, ''];
  try {
    const named = commandOf(argv[0]);
    const { spec: specOf, run, name } = named ?? MAIN;
    command = name;
    const asks = (words: readonly string[]): boolean => words.some((word) => argv.includes(word));
    if (argv[0] === TO_COMPLETE) return await propose(argv.slice(1));
    // Who asks is told, whatever else is wrong.
    if (asks(ASKS.version)) return say(await packageVersion());
    if (asks(ASKS.help)) return await help(name);
    await optimizeLater();
    const { parseArguments } = await import('./options/parse.js');
    const spec = await specOf();
    if (!named) await checkCommand(argv[0]);
    const words = named ? argv.slice(1) : argv;
    const configured = words.some(isConfig) ? await configuredIn(words, spec) : {};
    const values = parseArguments(spec, words, configured) as Readonly<Record<string, unknown>>;
    const asked = values['json'] as string | undefined;
    const { checkJson, give } = await import('./commands/command.js');
    // Nothing is written, not even that it failed, where nothing may be written.
    if (asked !== undefined) checkJson(asked, readsOf(spec, values));
    json = asked;
    const outcome = await run(values);
    return outcome ? await give(outcome, json) : 0;
  } catch (error) {
    // The file may be what could not be written: the error is said all the same.
    if (error instanceof Diagnostic && json !== undefined) {
      const { failureFor, putJson } = await import('./commands/command.js');
      await putJson(failureFor(command === '' ? 'fuse' : command, error), json).catch(() => {});
    }
    return explain(error);
  }
}

/**
 * Node 20 optimizes functions that ran for a millisecond, on two threads, which takes a third of the time of a short command. What runs
 * for long is optimized all the same. Later versions wait by themselves, and do not know this option of the engine. And young objects get
 * more room at once: collecting them a megabyte at a time took a tenth.
 */
async function optimizeLater(): Promise<void> {
  if (!process.version.startsWith('v20.')) return;
  const { setFlagsFromString } = await import('node:v8');
  setFlagsFromString('--interrupt-budget=600000');
  setFlagsFromString('--semi-space-growth-factor=8');
}

const isConfig = (word: string): boolean => word.startsWith('--config');

/** What the file that `--config` names says. @throws Diagnostic OF_CONFIG. */
async function configuredIn(argv: readonly string[], spec: CommandSpec): Promise<Readonly<Record<string, unknown>>> {
  const { configIn, configuredFlags } = await import('./commands/config.js');
  const file = configIn(spec, argv);
  return file === undefined ? {} : configuredFlags(file, spec);
}

/** What JSON takes no place of. */
function readsOf({ words }: CommandSpec, values: Readonly<Record<string, unknown>>): (string | undefined)[] {
  return [...words.map(({ name }) => name), 'config', 'calibrate'].map((name) => values[name] as string | undefined);
}

function commandOf(word: string | undefined): Command | undefined {
  // The first one has no name, and files of commands call it `fuse`.
  return COMMANDS.find(({ name }) => (name === '' ? word === 'fuse' : word === name));
}

const allSpecs = (): Promise<CommandSpec[]> => Promise.all(COMMANDS.map((each) => each.spec()));

/** Prints the help of a command. @throws Diagnostic OF_USAGE. */
async function help(name = ''): Promise<number> {
  const found = name === '' ? MAIN : commandOf(name);
  if (!found) throw await noSuchCommand(name);
  const { helpOf } = await import('./options/help.js');
  return say(await helpOf(await found.spec(), found === MAIN ? await allSpecs() : []));
}

async function completion(): Promise<null> {
  const { completionScript } = await import('./options/help.js');
  completionScript(await MAIN.spec());
  return null;
}

async function propose(line: readonly string[]): Promise<number> {
  const { completionsOf } = await import('./options/help.js');
  const found = await completionsOf(line, await allSpecs());
  return found.length === 0 ? 0 : say(found.join('\n'));
}

async function noSuchCommand(word: string): Promise<Diagnostic> {
  const { suggestion } = await import('../passes/framework/nearest.js');
  const names = COMMANDS.flatMap(({ name }) => (name === '' ? [] : [name]));
  return errors.usage('', `there is no command '${word}'`, suggestion(word, names));
}

/** What is no command is a model; where there is none of this name, a command was perhaps meant. @throws Diagnostic OF_USAGE. */
async function checkCommand(word: string | undefined): Promise<void> {
  if (word === undefined || !/^[a-z]+$/i.test(word)) return;
  const [{ nearest }, { existsSync }] = await Promise.all([
    import('../passes/framework/nearest.js'),
    import('node:fs'),
  ]);
  const names = COMMANDS.flatMap(({ name }) => (name === '' ? [] : [name]));
  const meant = nearest(word, names);
  if (meant === null || existsSync(word)) return;
  throw errors.usage('', `'${word}' is neither a command nor a file`, `did you mean onnx-fuse ${meant}?`);
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
