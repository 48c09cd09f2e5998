/** Help, drawn from specifications. Its width is fixed: what a command says does not depend on who reads it. */
import { COMMON_FLAGS } from './parse.js';
import { type CommandSpec, type FlagSpec, usageOf } from './spec.js';

const WIDTH = 110;
/** Where explanations begin at the latest; what is longer has a line of its own. */
const LEFT = 36;

const ABOUT = 'Fuses attention-free runs of feed-forward layers (FFNs) of an ONNX decoder into wide ones.';

/** The help of the command, and in that of the main one a list of all. */
export function helpOf(spec: CommandSpec, commands: readonly CommandSpec[]): string {
  const head =
    spec.name === '' ? ['onnx-fuse in.onnx out.onnx', '', ABOUT] : [usageLine(spec), '', ...wrap(spec.summary, WIDTH)];
  const flags = { ...COMMON_FLAGS, ...spec.flags };
  return [
    ...head,
    ...section(
      'Commands',
      commands.map((each) => [usageLine(each), each.summary]),
    ),
    ...section(
      'Arguments',
      spec.words.map((word) => [usageOf(word), word.describe]),
    ),
    ...section(
      'Options',
      Object.entries(flags).map(([name, flag]) => [flagLine(name, flag), explanation(flag)]),
    ),
  ].join('\n');
}

function usageLine({ name, words }: CommandSpec): string {
  return ['onnx-fuse', ...(name === '' ? [] : [name]), ...words.map(usageOf)].join(' ');
}

function flagLine(name: string, { type, choices, alias }: FlagSpec): string {
  const value = type === 'boolean' ? '' : type === 'number' ? ' N' : choices ? ' CHOICE' : ' VALUE';
  return `${alias === undefined ? '    ' : `-${alias}, `}--${name}${value}`;
}

function explanation({ describe, choices, fallback, shownDefault }: FlagSpec): string {
  const standard = shownDefault ?? (fallback === undefined || fallback === false ? undefined : String(fallback));
  const notes = [
    ...(choices ? [`one of ${choices.join(', ')}`] : []),
    ...(standard === undefined ? [] : [`default: ${standard}`]),
  ];
  return notes.length === 0 ? describe : `${describe} (${notes.join('; ')})`;
}

function section(title: string, rows: readonly (readonly [left: string, right: string])[]): string[] {
  if (rows.length === 0) return [];
  const left = Math.min(LEFT, Math.max(...rows.map(([word]) => word.length)));
  const lines = rows.flatMap(([word, text]) => {
    const [first = '', ...rest] = wrap(text, WIDTH - left - 4);
    const indent = ' '.repeat(left + 4);
    const begin = word.length > left ? [`  ${word}`, `${indent}${first}`] : [`  ${word.padEnd(left)}  ${first}`];
    return [...begin, ...rest.map((line) => `${indent}${line}`)];
  });
  return ['', `${title}:`, ...lines];
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
