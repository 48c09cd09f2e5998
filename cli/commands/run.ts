/** `onnx-fuse run onnx-fuse.config.json`: the commands of a file, one after another. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { apiErrors } from '../../api/basics/errors.js';
import { checkTarget } from '../../api/basics/targets.js';
import { readConfig, recordIn, valueIn } from '../../api/settings/config.js';
import { Diagnostic, errors, isInside } from '../../ir/index.js';
import { suggestion } from '../../passes/framework/nearest.js';
import type { runSpec } from '../options/run.js';
import type { ArgumentsOf, CommandSpec } from '../options/spec.js';
import { checkJson, failureFor, jsonFor, putJson, say } from './command.js';
import { argumentsIn } from './config.js';
import type { Outcome, RunResults } from './results.js';

/** A command that a file may name. The main one has no name on the command line, and is called `fuse` here. */
export interface Runnable {
  readonly name: string;
  spec(): Promise<CommandSpec>;
  run(values: object): Promise<Outcome | null>;
}

/** A command of the file with what it is given. */
interface Task {
  readonly name: string;
  readonly command: Runnable;
  readonly values: Readonly<Record<string, unknown>>;
}

/** Runs the commands of a file. All of it is read and checked before the first begins. @throws Diagnostic OF_CONFIG, OF_USAGE. */
export async function runCommand(args: ArgumentsOf<typeof runSpec>, commands: readonly Runnable[]): Promise<Outcome> {
  const tasks = await tasksIn(args.file, commands);
  checkFiles(tasks, args.file, args.json);
  const results: RunResults['results'][number][] = [];
  const isSilent = args.quiet || args.json === '-';
  let failure: Diagnostic | null = null;
  for (const [i, task] of tasks.entries()) {
    const began = performance.now();
    const { result, failed } = await outcomeOf(task, args.quiet);
    results.push(result);
    failure = failed;
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    if (!isSilent)
      say(
        `${i + 1} of ${tasks.length}: ${task.name} ${failure ? `failed (${failure.code})` : 'is done'}, ${seconds} s`,
      );
    if (failure) break;
  }
  const failing = `${results.length} of ${tasks.length}, ${results.at(-1)?.command}`;
  return { kind: 'run', result: { results }, render: () => '', failure: failure?.within(failing) ?? null };
}

/** Runs one command, and writes its own JSON where it was asked for. */
async function outcomeOf(
  { name, command, values }: Task,
  isQuiet: boolean,
): Promise<{ readonly result: RunResults['results'][number]; readonly failed: Diagnostic | null }> {
  let [result, failed]: [ReturnType<typeof jsonFor> | null, Diagnostic | null] = [null, null];
  try {
    const outcome = (await command.run(isQuiet ? { ...values, quiet: true } : values)) as Outcome;
    [result, failed] = [jsonFor(outcome), outcome.failure ?? null];
  } catch (error) {
    if (!(error instanceof Diagnostic)) throw error;
    failed = error;
  }
  const shown = result ?? failureFor(name, failed as Diagnostic);
  const json = values['json'] as string | undefined;
  if (json !== undefined) await putJson(shown, json);
  return { result: { ...shown, command: name }, failed };
}

/** The commands that a file lists. @throws Diagnostic OF_CONFIG for whatever is no command, no flag of it, or of another type. */
async function tasksIn(path: string, commands: readonly Runnable[]): Promise<Task[]> {
  const file = resolve(path);
  const { commands: listed, ...others } = await readConfig(path);
  const [stray] = Object.keys(others);
  if (stray !== undefined) throw apiErrors.config(file, `there is no key '${stray}'`, suggestion(stray, ['commands']));
  if (!Array.isArray(listed) || listed.length === 0) {
    throw apiErrors.config(
      `${file}, commands`,
      'expected a list of commands',
      'write "commands": [{ "command": "plan", ... }]',
    );
  }
  const known = new Map(commands.map((command) => [command.name === '' ? 'fuse' : command.name, command]));
  const tasks: Task[] = [];
  for (const [i, each] of listed.entries()) {
    const place = `${file}, commands[${i}]`;
    const { command: name, ...entries } = recordIn(each, place);
    const command = typeof name === 'string' ? known.get(name) : undefined;
    if (typeof name !== 'string' || !command) {
      valueIn(name, { type: 'string' }, `${place}, command`);
      throw apiErrors.config(place, `there is no command '${name}'`, suggestion(String(name), [...known.keys()]));
    }
    tasks.push({ name, command, values: argumentsIn(entries, await command.spec(), place) });
  }
  return tasks;
}

/** What any command calls the files that it writes. */
const OUTPUTS = ['output', 'whole', 'report', 'html', 'block-configs', 'calibrate', 'json'];
/** What any command calls the files that it reads. */
const INPUTS = ['input', 'model', 'a', 'b', 'plan', 'data', 'held-out', 'tokenizer', 'tp-plan', 'verify', 'bench'];

/**
 * Every file is looked at before the first command runs: what a command reads is there or comes from one before it, and no two
 * write the same. @throws Diagnostic.
 */
function checkFiles(tasks: readonly Task[], file: string, json: string | undefined): void {
  const reads = [file];
  const writes: string[] = json === undefined || json === '-' ? [] : [json];
  const isWritten = (path: string): boolean => writes.some((each) => isInside(resolve(each), resolve(path)));
  for (const [i, { values }] of tasks.entries()) {
    for (const name of INPUTS) {
      for (const path of [values[name]].flat()) {
        if (typeof path !== 'string' || existsSync(path) || isWritten(path)) continue;
        throw errors.noSuchFile(`${file}, commands[${i}], ${name}: ${path}`);
      }
    }
    for (const name of OUTPUTS) {
      const target = values[name];
      if (typeof target !== 'string') continue;
      const place = `${file}, commands[${i}], ${name}`;
      if (name === 'json') {
        if (target === '-') throw apiErrors.config(place, 'standard output is for all results', 'name a file');
        inPlace(place, () => checkJson(target, reads));
      }
      if (writes.some((each) => resolve(each) === resolve(target)))
        throw apiErrors.config(place, `'${target}' is written by another command, too`, 'name two files');
      inPlace(place, () => checkTarget(target, reads, writes));
      writes.push(target);
    }
  }
}

/** A check whose error says of which command it is. @throws Diagnostic. */
function inPlace(place: string, check: () => void): void {
  try {
    check();
  } catch (error) {
    throw error instanceof Diagnostic ? error.within(place) : error;
  }
}
