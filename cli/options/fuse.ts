/** What `onnx-fuse in.onnx out.onnx` takes: the flags that config files have, too, and what says which file to read. */
import { grouped } from '../../api/settings/flag-groups.js';
import { type Flag, FUSE_FLAGS } from '../../api/settings/flags.js';
import { PLUGIN_FLAGS, RESULT_FLAGS } from './shared.js';
import { commandSpec, type FlagSpec } from './spec.js';

export const fuseSpec = commandSpec({
  name: '',
  summary: 'Fuse a model',
  words: [
    { name: 'input', describe: 'The model (.onnx), or a folder with one' },
    {
      name: 'output',
      describe: 'Where the fused model is written; a folder if the input is one',
    },
  ],
  flags: {
    ...sharedFlags(),
    json: RESULT_FLAGS.json,
    ...PLUGIN_FLAGS,
    ...grouped('General', { preset: { type: 'string', describe: 'Use this preset of the config file' } }),
  },
  examples: [
    { about: 'apply a plan that onnx-fuse plan made', line: 'smol smol-fused --plan plan.json' },
    {
      about: 'take attentions out, with fitted maps in their places',
      line: 'in.onnx out.onnx --remove-attention 4-9 --recover --data calib.txt',
    },
    { about: 'only say what would be done', line: 'in.onnx out.onnx --remove-attention 4-9 --dry-run' },
  ],
});

/** Defaults are only shown: what is absent may still come from a config file. */
function sharedFlags(): Readonly<Record<string, FlagSpec>> {
  const entries = Object.entries<Flag>(FUSE_FLAGS).map(
    ([name, { type, describe, choices, fallback, alias, group }]) => [
      name,
      {
        type: type === 'number' || type === 'boolean' ? type : 'string',
        describe,
        ...(choices ? { choices } : {}),
        ...(alias === undefined ? {} : { alias }),
        ...(group === undefined ? {} : { group }),
        ...(type === 'paths' ? { repeats: true } : {}),
        ...(fallback === undefined || fallback === false ? {} : { shownDefault: String(fallback) }),
      },
    ],
  );
  return Object.fromEntries(entries);
}
