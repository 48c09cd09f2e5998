/** docs/api.md, made from the types and the doc comments of api/index.ts. */
import { join } from 'node:path';
import { ROOT } from '../helpers/paths.js';
import { type Named, SymbolFlags, type Types, withTypes } from './types.js';

export const API_PAGE = join(ROOT, 'docs', 'api.md');

const HEAD = `# API

What \`import { ... } from 'onnx-fuse'\` gives. Each command calls the function of its name. This page is made from the types: \`npm run docs\`.

\`\`\`ts
import { checkPlan, checkVerification, fuse, plan, report, verify } from 'onnx-fuse';

const made = await plan({ model: 'in.onnx', output: 'plan.json', data: ['calib.txt'], maxKl: 0.05 });
checkPlan(made); // throws where the plan does not keep to the limit
await fuse({ input: 'in.onnx', output: 'out.onnx', plan: 'plan.json' });
const found = await verify('in.onnx', 'out.onnx', { data: 'heldout.txt' });
checkVerification(found, { maxKl: 0.05 });
await report({ plan: made, verify: found, output: 'report.html' });
\`\`\`

What runs models or writes files returns a promise; what only reads a graph (\`open\`, \`inspect\`, \`goldenText\`) does not. Everything a user can mend is
thrown as a \`Diagnostic\`, with a \`code\` of [errors.md](errors.md), and with place, found and remedy in its message; so are options that there are not, and values
of another type than is said here. Options that are left
out, or undefined, have the default that is said; paths are relative to the working directory. Nothing is printed unless \`talk\` says where: \`stderrTalk()\`.
`;

/** In this order; what is not named here comes after. */
const FIRST = [
  ...['fuse', 'recover', 'plan', 'checkPlan', 'verify', 'checkVerification', 'bench', 'report', 'shard', 'annotate'],
  ...['inspect', 'open', 'save', 'golden', 'goldenText', 'goldenDiff', 'inspectModel'],
];
/** What functions are asked for: it stands below the first that takes it. */
const REQUEST = /\b\w+(?:Request|Options|Limits)\b/g;

/** The text of the page. */
export function apiPage(): string {
  return withTypes((types) => {
    const all = [...types.exportsOf('api/index.ts').values()];
    const functions = all.filter(({ symbol }) => symbol.flags & SymbolFlags.Function);
    const rank = ({ name }: Named): number => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
    functions.sort((a, b) => rank(a) - rank(b));
    const others = new Map(all.filter((each) => !functions.includes(each)).map((each) => [each.name, each]));
    const parts: string[] = [];
    for (const each of functions) {
      parts.push(functionText(types, each));
      for (const [name] of types.signaturesOf(each).join('').matchAll(REQUEST)) {
        const request = others.get(name);
        if (request) parts.push(typeText(types, request, '###'));
        others.delete(name);
      }
    }
    parts.push('\n## Types and values\n', ...[...others.values()].map((each) => typeText(types, each, '###')));
    return HEAD + parts.join('');
  });
}

function functionText(types: Types, named: Named): string {
  const signature = types.signaturesOf(named).map((text) => `${named.name}${text.replace(/\) => /, '): ')}`);
  const lines = [`\n## ${named.name}\n`, `\`\`\`ts\n${signature.join('\n')}\n\`\`\`\n`, `${wordsOf(named.text)}\n`];
  const params = named.tags.filter(({ name }) => name === 'param');
  if (params.length > 0) {
    const items = params.map(({ text }) => {
      const [, word, rest] = /^(\w+)\s+([\s\S]*)$/.exec(text) ?? [];
      return `- \`${word}\`: ${wordsOf(rest ?? text)}`;
    });
    lines.push(`${items.join('\n')}\n`);
  }
  for (const { name, text } of named.tags) if (name === 'throws') lines.push(`Throws: ${wordsOf(text)}\n`);
  return lines.join('\n');
}

function typeText(types: Types, named: Named, level: string): string {
  const head = [`\n${level} ${named.name}\n`, ...(named.text === '' ? [] : [`${wordsOf(named.text)}\n`])];
  const { flags } = named.symbol;
  if (flags & SymbolFlags.Variable) return head.join('\n');
  const type = types.typeOf(named);
  if (!type.isObjectType() && !type.isIntersectionType()) return [...head, `\`${types.textOf(type)}\`\n`].join('\n');
  const items = types.membersOf(type).map((member) => {
    const text = `- \`${member.name}${member.isOptional ? '?' : ''}: ${types.textOf(member.type, member.isOptional)}\``;
    return member.text === '' ? text : `${text}: ${wordsOf(member.text)}`;
  });
  return [...head, `${items.join('\n')}\n`].join('\n');
}

/** A comment on one line. */
function wordsOf(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ').trim();
}
