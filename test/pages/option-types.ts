/** api/basics/option-types.ts: what `checkOptions` holds options to, made from the types of the requests. */
import { join } from 'node:path';
import { ROOT } from '../helpers/paths.js';
import { type Type, type Types, withTypes } from './types.js';

export const OPTION_TYPES_FILE = join(ROOT, 'api', 'basics', 'option-types.ts');

const HEAD = `/** The options of every function of api/index.ts, made from their types: npm run docs. */
export const OPTION_TYPES = {
`;

/** The text of the file. */
export function optionTypes(): string {
  return withTypes((types) => {
    const parts: string[] = [];
    for (const [name, named] of types.exportsOf('api/index.ts')) {
      if (!/(?:Request|Options|Limits)$/.test(name)) continue;
      const lines = types.membersOf(types.typeOf(named)).map(({ name: option, type, isOptional }) => {
        const text = wordsOf(types, type).join(' | ');
        const quote = text.includes("'") ? '"' : "'";
        return `    ${isOptional ? `'${option}?'` : option}: ${quote}${text}${quote},\n`;
      });
      parts.push(`  ${name}: {\n${lines.join('')}  },\n`);
    }
    return `${HEAD}${parts.join('')}} as const;\n`;
  });
}

/** The types that a value may have; what may be undefined is left out. */
function wordsOf(types: Types, type: Type): string[] {
  const { checker } = types;
  if (type.isUnionType()) {
    const all = type.getTypes().filter((each) => types.textOf(each) !== 'undefined');
    return [...new Set(all.flatMap((each) => wordsOf(types, each)))].sort();
  }
  const text = types.textOf(type);
  if (text === 'string' || text === 'number' || text === 'null') return [text];
  if (text === 'boolean' || text === 'true' || text === 'false') return ['boolean'];
  if (type.isLiteralType()) return [JSON.stringify(type.value)];
  if (checker.isTupleType(type) || checker.isArrayType(type)) {
    const items = checker.getTypeArguments(type as never).flatMap((each) => wordsOf(types, each as Type));
    return [...new Set(items)].map((each) => `${each}[]`);
  }
  return [types.isFunction(type) ? 'function' : 'object'];
}
