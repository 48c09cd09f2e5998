/** Writes the pages that are made from the code: `npm run docs`. */
import { writeFileSync } from 'node:fs';
import { CLI_PAGE, cliPage } from './pages/cli-page.js';
import { ERROR_PAGE, errorPage } from './pages/error-page.js';
import { PICTURE, picture } from './pages/picture.js';

writeFileSync(ERROR_PAGE, errorPage());
writeFileSync(CLI_PAGE, cliPage());
writeFileSync(PICTURE, picture());
