/** Writes the pages that are made from the code: `npm run docs`. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { API_PAGE, apiPage } from './pages/api-page.js';
import { CLI_PAGE, cliPage } from './pages/cli-page.js';
import { ERROR_PAGE, errorPage } from './pages/error-page.js';
import { OPTION_TYPES_FILE, optionTypes } from './pages/option-types.js';
import { PICTURE, picture } from './pages/picture.js';
import { SCHEMAS, schemas, schemaText } from './pages/schemas.js';

writeFileSync(ERROR_PAGE, errorPage());
writeFileSync(CLI_PAGE, cliPage());
writeFileSync(API_PAGE, apiPage());
writeFileSync(OPTION_TYPES_FILE, optionTypes());
writeFileSync(PICTURE, picture());
// Those of commands and kinds that are no more go.
rmSync(SCHEMAS, { recursive: true, force: true });
for (const [file, schema] of schemas()) {
  mkdirSync(dirname(join(SCHEMAS, file)), { recursive: true });
  writeFileSync(join(SCHEMAS, file), schemaText(schema));
}
