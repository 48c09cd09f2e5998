/** docs/cli.md, made from the recorded help of all commands. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { GOLDEN_ROOT } from '../helpers/golden.js';
import { ROOT } from '../helpers/paths.js';

export const CLI_PAGE = join(ROOT, 'docs', 'cli.md');

const HEAD = `# Commands and flags

What \`onnx-fuse --help\` and \`onnx-fuse COMMAND --help\` print. This page is made from it: \`npm run docs\`.
`;

/** The text of the page. */
export function cliPage(): string {
  const help = readFileSync(join(GOLDEN_ROOT, 'cli', 'help.txt'), 'utf8');
  const parts = help.split(/^\$ (onnx-fuse .*)--help$/m).slice(1);
  const sections = parts.flatMap((part, i) => {
    if (i % 2 === 1) return [];
    return [`\n## ${part.trim()}\n\n\`\`\`\n${(parts[i + 1] as string).trim()}\n\`\`\`\n`];
  });
  return HEAD + sections.join('');
}
