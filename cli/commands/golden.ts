/** `onnx-fuse golden model.onnx expected.golden` */
import { apiErrors } from '../../api/basics/errors.js';
import { golden } from '../../api/commands/golden.js';
import type { goldenSpec } from '../options/golden.js';
import type { ArgumentsOf } from '../options/spec.js';
import { commandLineOf } from '../text/command-line.js';
import type { Outcome } from './results.js';

export async function goldenCommand(args: ArgumentsOf<typeof goldenSpec>): Promise<Outcome> {
  const { model: path, expected, accept } = args;
  const remedy = `if this is right: ${commandLineOf('golden', path, expected, '--accept')}`;
  const result = await golden(path, expected, { accept }).catch((error: unknown) => {
    // The same, with the command that a person has to type.
    if (apiErrors.golden.is(error) && error.place === expected) throw apiErrors.golden(expected, error.text, remedy);
    throw error;
  });
  const { same, diff } = result;
  const what = same ? `${path} is as recorded in ${expected}` : `${path} is now recorded in ${expected}`;
  const isWrong = !same && !accept;
  return {
    kind: 'comparison',
    result,
    render: () => (isWrong ? (diff as string) : what),
    failure: isWrong ? apiErrors.golden(path, `it is not as recorded in ${expected}`, remedy) : null,
  };
}
