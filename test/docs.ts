/** Writes the pages that are made from the code: `npm run docs`. */
import { writeFileSync } from 'node:fs';
import { ERROR_PAGE, errorPage } from './helpers/error-page.js';

writeFileSync(ERROR_PAGE, errorPage());
