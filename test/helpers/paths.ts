/** Where things lie, from the place of the compiled tests: no test depends on the folder that it was started in. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The root of the repository. */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
/** The compiled command line. */
export const BIN = fileURLToPath(new URL('../../cli/bin.js', import.meta.url));
export const GOLDEN_ROOT = join(ROOT, 'golden');
/** The trained model of twelve layers that the repository holds. */
export const TALES12 = join(GOLDEN_ROOT, 'models', 'tales12-fp16.onnx');
