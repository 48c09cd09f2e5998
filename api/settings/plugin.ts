/** Loads passes of users from modules that export `passes`. */
import { existsSync } from 'node:fs';
import * as nodeModule from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Diagnostic, errors, reasonOf } from '../../ir/index.js';
import { passErrors } from '../../passes/analysis/errors.js';
import { extendRegistry, type Pass, registry } from '../../passes/index.js';

/**
 * Our passes and those of the plugins, by id. Relative paths are relative to the working directory.
 * @throws Diagnostic OF_NO_SUCH_FILE, OF_PLUGIN.
 */
export async function loadPlugins(paths: readonly string[]): Promise<ReadonlyMap<string, Pass>> {
  let all: ReadonlyMap<string, Pass> = registry;
  for (const path of new Set(paths.map((each) => resolve(each)))) {
    const { passes } = await importModule(path, passErrors.plugin);
    if (!Array.isArray(passes)) {
      throw passErrors.plugin(
        path,
        'it exports no array called passes',
        'write export const passes = [definePass({ ... })]',
      );
    }
    all = extendRegistry(all, passes, path);
  }
  return all;
}

/** Imports a user's module. Throws OF_NO_SUCH_FILE, or what `refuse` makes of whatever goes wrong inside of it. */
export async function importModule(
  path: string,
  refuse: (path: string, why: string, remedy: string) => Diagnostic,
): Promise<Readonly<Record<string, unknown>>> {
  if (!existsSync(path)) throw errors.noSuchFile(path);
  hookImports();
  try {
    return (await import(pathToFileURL(path).href)) as Record<string, unknown>;
  } catch (error) {
    const thrown = refuse(path, `it cannot be loaded: ${reasonOf(error)}`, 'mend the module; DEBUG=1 shows the stack');
    thrown.cause = error;
    throw thrown;
  }
}

type Resolve = (specifier: string, context: { parentURL?: string }) => unknown;
interface SyncHooks {
  registerHooks?: (hooks: {
    resolve(specifier: string, context: { parentURL?: string }, next: Resolve): unknown;
  }) => void;
}

/** For Node before 22.15: hooks run in a thread of their own, so they are source text. */
const HOOKS = `
let parentURL;
export const initialize = (data) => { parentURL = data.parentURL; };
export const resolve = (specifier, context, next) =>
  next(specifier, /^onnx-fuse(\\/|$)/.test(specifier) ? { ...context, parentURL } : context);
`;

let isHooked = false;

/**
 * Makes 'onnx-fuse' mean this very package in everything that is imported from now on, wherever it lies: plugins work
 * with a global or npx installation, and never see a second copy, whose classes would not be ours.
 */
function hookImports(): void {
  if (isHooked) return;
  isHooked = true;
  const parentURL = import.meta.url;
  const { registerHooks } = nodeModule as SyncHooks;
  if (registerHooks) {
    registerHooks({
      resolve: (specifier, context, next) =>
        next(specifier, /^onnx-fuse(\/|$)/.test(specifier) ? { ...context, parentURL } : context),
    });
  } else if (typeof nodeModule.register === 'function') {
    nodeModule.register(`data:text/javascript,${encodeURIComponent(HOOKS)}`, { data: { parentURL } });
  }
}
