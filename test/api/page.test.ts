/** docs/api.md, and what the types say of the options that it lists. */
import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { suite } from '../helpers/suite.js';
import { API_PAGE, apiPage } from '../pages/api-page.js';
import { OPTION_TYPES_FILE, optionTypes } from '../pages/option-types.js';
import { SymbolFlags, withTypes } from '../pages/types.js';

const test = suite('api page');

test('docs/api.md says what the types say', () => {
  assert.ok(readFileSync(API_PAGE, 'utf8') === apiPage(), 'docs/api.md differs: npm run docs writes it');
});

test('api/basics/option-types.ts says what the types say', () => {
  assert.is(readFileSync(OPTION_TYPES_FILE, 'utf8'), optionTypes(), 'it differs: npm run docs writes it');
});

test('every function has a comment, and says which errors it throws if it reads, runs or writes', () => {
  const found = withTypes((types) =>
    [...types.exportsOf('api/index.ts').values()]
      .filter(({ symbol }) => symbol.flags & SymbolFlags.Function)
      .filter(
        ({ name, text, tags }) => text === '' || (!QUIET.includes(name) && !tags.some((tag) => tag.name === 'throws')),
      )
      .map(({ name }) => name),
  );
  assert.equal(found, []);
});

/** They throw nothing that a user could mend. */
const QUIET = ['goldenDiff', 'goldenText', 'inspectModel', 'packageVersion', 'stderrTalk'];

test('every option says what it is, and its default if it may be left out', () => {
  const [found, count] = withTypes((types) => {
    const requests = [...types.exportsOf('api/index.ts').values()].filter(({ name }) =>
      /(?:Request|Options|Limits)$/.test(name),
    );
    const members = requests.flatMap((request) =>
      types.membersOf(types.typeOf(request)).map((member) => ({ ...member, name: `${request.name}.${member.name}` })),
    );
    const silent = members.filter(
      ({ text, isOptional }) => text === '' || (isOptional && !/\b(?:default|not judged)\b/.test(text)),
    );
    return [silent.map(({ name, text }) => `${name}: ${text}`), members.length];
  });
  assert.ok(count > 100, `${count}`);
  assert.equal(found, []);
});

test.run();
