/** What a page tells its reader to type: the lines of its blocks of commands, of its tables, and of the files it shows. */

export interface Told {
  /** Line of the page, from 1. */
  readonly line: number;
  /** As it is written, without a comment behind it. */
  readonly command: string;
  /** A row of a table is one way among others: it expects nothing of the rows before it. */
  readonly inTable: boolean;
  /** `sh` for a command; a program is in another. */
  readonly language: string;
}

/** Languages whose blocks are programs: they are run as a whole. */
const PROGRAMS = new Set(['ts', 'js', 'python']);

/** A block of a page that is shown as it is: what stands behind its fence, its first line and its text. */
export interface Block {
  readonly language: string;
  readonly line: number;
  readonly text: string;
}

/** The fenced blocks of a page, and those that are set in by four blanks, which are commands. */
export function blocksOf(page: string): Block[] {
  const found: Block[] = [];
  let open: { language: string; line: number; lines: string[] } | null = null;
  let isSetIn = false;
  page.split(/\r?\n/).forEach((text, index, lines) => {
    isSetIn = open === null && /^ {4}\S/.test(text) && (isSetIn || lines[index - 1] === '');
    const fence = /^```(\w*)$/.exec(text);
    if (fence !== null && open !== null) {
      found.push({ ...open, text: open.lines.join('\n') });
      open = null;
    } else if (fence !== null) open = { language: fence[1] as string, line: index + 2, lines: [] };
    else if (open !== null) open.lines.push(text);
    else if (isSetIn) found.push({ language: 'sh', line: index + 1, text: text.trim() });
  });
  if (open !== null) throw new Error('a fence is not closed');
  return found;
}

/** Everything on a page that a reader would type, in the order of the page; programs as a whole. */
export function commandsOf(page: string): Told[] {
  const found: Told[] = [];
  for (const { language, line, text } of blocksOf(page)) {
    if (PROGRAMS.has(language)) found.push({ line, command: text, inTable: false, language });
    text.split('\n').forEach((each, index) => {
      const command = commandIn(language, each);
      if (command !== null) found.push({ line: line + index, command, inTable: false, language: 'sh' });
    });
  }
  page.split(/\r?\n/).forEach((row, index) => {
    if (!row.startsWith('| ')) return;
    for (const [, command = ''] of row.matchAll(/`((?:onnx-fuse|torchrun) [^`]+)`/g)) {
      found.push({ line: index + 1, command, inTable: true, language: 'sh' });
    }
  });
  return found.sort((a, b) => a.line - b.line);
}

/** The command in a line of a block; null when there is none. Transcripts hold commands behind a dollar sign. */
function commandIn(language: string, line: string): string | null {
  const forms: Record<string, RegExp> = {
    sh: /^(?!#)(\S.*?)(?:\s+#\s.*)?$/,
    bash: /^(?!#)(\S.*?)(?:\s+#\s.*)?$/,
    '': /^\$ (.+)$/,
    yaml: /^\s*(?:- )?(?:run|entry): (\S.*)$/,
    dockerfile: /^(?:RUN) (\S.*)$/,
  };
  return forms[language]?.exec(line)?.[1] ?? null;
}
