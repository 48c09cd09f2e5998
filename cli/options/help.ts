/** What the command line says of itself: help, and what a shell proposes to complete a line. */
import type { Options } from 'yargs';
import { textWidth } from '../text/width.js';
import { parserOf, usageLine } from './parse.js';
import { type CommandSpec, type FlagSpec, usageOf } from './spec.js';

const ABOUT = `Makes ONNX language models smaller and faster: takes attentions out, puts fitted \
linear maps in their places, fuses the feed-forward networks (FFNs) that are then consecutive.`;

const AFTERWORD = `onnx-fuse COMMAND --help explains a command. --no-FLAG turns off what is on by default: --no-verify.
Exit codes: 0 done; 1 something is wrong with the model, or a check or a limit failed; 2 usage.`;

/** The help of a command, and in that of the main one a list of all. */
export function helpOf(spec: CommandSpec, commands: readonly CommandSpec[]): Promise<string> {
  const { name, summary, words, examples = [] } = spec;
  const isMain = name === '';
  const usage = isMain ? '$0 in.onnx out.onnx\n$0 COMMAND ...' : ['$0', ...words.map(usageOf)].join(' ');
  const parser = parserOf(spec, [], shownOption)
    .usage(`${usage}\n\n${isMain ? ABOUT : summary}`)
    .wrap(textWidth());
  for (const { about, line } of examples) parser.example(`# ${about}`, '').example(`onnx-fuse ${line}`, '');
  for (const each of commands) if (each.name !== '') parser.command(usageLine(each), each.summary);
  return (isMain ? parser.epilog(AFTERWORD) : parser).getHelp();
}

/** A flag as help shows it. */
function shownOption({ type, group = 'General', describe, choices, fallback, shownDefault, alias, repeats }: FlagSpec) {
  const isOn = fallback === true || (type === 'boolean' && shownDefault === 'true');
  const option: Options = {
    type,
    group: `${group}:`,
    describe: shownDefault === undefined || isOn ? describe : `${describe} [${shownDefault}]`,
    ...(choices ? { choices } : {}),
    // That nothing is done unless it is asked for goes without saying.
    ...(isOn ? { default: true } : fallback ? { default: fallback } : {}),
    ...(alias === undefined ? {} : { alias }),
    ...(repeats ? { array: true } : {}),
  };
  return option;
}

/** The script that makes a shell, bash or what SHELL says, complete our lines. */
export function completionScript(spec: CommandSpec): void {
  parserOf(spec, [], shownOption).showCompletionScript();
}

/**
 * What may stand in the place of the last of `line`, which may begin with the name of the program: commands for the first word, flags
 * where it begins like one, and what a flag takes. Nothing elsewhere: shells then propose files. The first of `specs` is the main one.
 */
export async function completionsOf(line: readonly string[], specs: readonly CommandSpec[]): Promise<string[]> {
  const words = /(^|[/\\])onnx-fuse[^/\\]*$/.test(line[0] ?? '') ? line.slice(1) : line;
  const current = words.at(-1) ?? '';
  const isFirst = words.length < 2 && !current.startsWith('-');
  if (isFirst) return specs.flatMap(({ name }) => (name === '' ? [] : [name]));
  const named = specs.find(({ name }) => name !== '' && name === words[0]);
  const parser = parserOf(named ?? (specs[0] as CommandSpec), [], shownOption);
  const found = await parser.getCompletion(named ? words.slice(1) : [...words]);
  // yargs calls the command itself $0, writes letters like words, and proposes flags where nothing was typed.
  const isOurs = (each: string): boolean => !/^(\$0|--\w(\W|$))/.test(each);
  return found.filter((each) => isOurs(each) && (current.startsWith('-') || !each.startsWith('-')));
}
