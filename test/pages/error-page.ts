/** docs/errors.md, made from the catalogues of all layers. */
import { join } from 'node:path';
import { apiErrors } from '../../api/basics/errors.js';
import { EXIT_CODES } from '../../cli/text/diagnostic.js';
import { withFlags } from '../../cli/text/flags.js';
import { type CatalogueEntry, type DiagnosticKind, errors } from '../../ir/diagnostic.js';
import { passErrors } from '../../passes/analysis/errors.js';
import { runtimeErrors } from '../../runtime/session/errors.js';
import { ROOT } from '../helpers/paths.js';

export const ERROR_PAGE = join(ROOT, 'docs', 'errors.md');

/** Every catalogue, by the file that holds it. */
export const CATALOGUES = {
  'ir/diagnostic.ts': errors,
  'passes/analysis/errors.ts': passErrors,
  'runtime/session/errors.ts': runtimeErrors,
  'api/basics/errors.ts': apiErrors,
} as const;

/** Every entry of every catalogue, in the order of their codes. */
export const ENTRIES: readonly CatalogueEntry[] = Object.values(CATALOGUES)
  .flatMap((catalogue) => Object.values(catalogue).map(({ entry }): CatalogueEntry => entry))
  .sort((a, b) => (a.code < b.code ? -1 : a.code > b.code ? 1 : 0));

const WHO: Readonly<Record<DiagnosticKind, string>> = {
  model: 'the model',
  usage: 'the command line',
  system: 'the machine',
};

const HEAD = `# Errors

Every error is one line on stderr: a code, the place, what was found and what was expected, and a remedy. Codes are stable:
scripts may match on them. A program that uses the library gets the same as a \`Diagnostic\` with \`code\`, \`kind\`, \`place\`,
\`text\` and \`remedy\`; there, options are named by meaning instead of by flag.

"Who" says where the cause lies: in the model, in the command line (or the files of settings it names), or in the machine. The
remedies are the usual ones; a message may end with another that fits its case better. A line that starts with
"internal error" is a fault of onnx-fuse itself, with exit code 1: please report it.

<!-- Made from the catalogues by \`npm run docs\`. -->

| code | who | exit code | what it means | remedy |
|---|---|---|---|---|
`;

/** The whole page. */
export function errorPage(): string {
  const rows = ENTRIES.map(({ code, kind, about, remedy }) =>
    [`\`${code}\``, WHO[kind], String(EXIT_CODES[kind]), about, withFlags(remedy)].map(cellOf).join(' | '),
  );
  return `${HEAD}${rows.map((row) => `| ${row} |\n`).join('')}`;
}

function cellOf(text: string): string {
  return text.replaceAll('|', '\\|');
}
