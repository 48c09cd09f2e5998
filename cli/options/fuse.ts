/** What `onnx-fuse in.onnx out.onnx` takes: the flags that config files have, too, and what says which file to read. */
import { type Flag, FUSE_FLAGS } from '../../api/settings/flags.js';
import { JSON_FLAG, PLUGIN_FLAGS } from './shared.js';
import { commandSpec, type FlagSpec } from './spec.js';

export const fuseSpec = commandSpec({
  name: '',
  summary: 'Fuse a model',
  words: [
    { name: 'input', describe: 'The model (.onnx), or a folder with one', isOptional: true },
    {
      name: 'output',
      describe: 'Where the fused model is written; a folder if the input is one',
      isOptional: true,
    },
  ],
  flags: {
    ...sharedFlags(),
    ...PLUGIN_FLAGS,
    json: JSON_FLAG,
    preset: { type: 'string', describe: 'Use this preset of the config file' },
  },
});

/** Defaults are only shown: what is absent may still come from a config file. */
function sharedFlags(): Readonly<Record<string, FlagSpec>> {
  const entries = Object.entries<Flag>(FUSE_FLAGS).map(([name, { type, describe, choices, fallback }]) => [
    name,
    {
      type: type === 'number' || type === 'boolean' ? type : 'string',
      describe,
      ...(choices ? { choices } : {}),
      ...(type === 'paths' ? { repeats: true } : {}),
      ...(fallback === undefined || fallback === false ? {} : { shownDefault: String(fallback) }),
    },
  ]);
  return Object.fromEntries(entries);
}
