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
  command(
    'env',
    async () => (await import('./options/program.js')).envSpec,
    async () => (await import('./commands/env.js')).envCommand,
  ),
  command(
    'completion',
    async () => (await import('./options/program.js')).completionSpec,
    async () => completion,
  ),
  command(
    'help',
    async () => (await import('./options/program.js')).helpSpec,
    async () =>
      ({ command: name }) =>
        help(name),
  ),
];

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
    const { parseArguments } = await import('./options/parse.js');
    const spec = await specOf();
    if (!named) await checkCommand(argv[0]);
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

function commandOf(word: string | undefined): Command | undefined {
  return COMMANDS.find(({ name }) => name !== '' && name === word);
}

const allSpecs = (): Promise<CommandSpec[]> => Promise.all(COMMANDS.map((each) => each.spec()));

/** Prints the help of a command. @throws Diagnostic OF_USAGE. */
async function help(name = ''): Promise<number> {
  const found = name === '' ? MAIN : commandOf(name);
  if (!found) throw await noSuchCommand(name);
  const { helpOf } = await import('./options/help.js');
  return say(await helpOf(await found.spec(), found === MAIN ? await allSpecs() : []));
}

async function completion(): Promise<number> {
  const { completionScript } = await import('./options/help.js');
  completionScript(await MAIN.spec());
  return 0;
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
