/** The errors that passes can raise. */
import { modelError, reasonOf, systemError, usageError } from '../../ir/diagnostic.js';

/** The catalogue of this layer. Codes are stable: scripts match on them. */
export const passErrors = {
  invalidGraph: (place: string, why: string) =>
    modelError('OF_INVALID_GRAPH', place, why, 'this is a bug in the pass named here; please report it'),
  noSuchLayer: (layer: number, layers: string) =>
    usageError(
      'OF_NO_SUCH_LAYER',
      `layer ${layer}`,
      `the model has no such layer; it has ${layers}`,
      'see onnx-fuse inspect',
    ),
  cannotRemove: (layer: number, reason: string) =>
    modelError(
      'OF_CANNOT_REMOVE',
      `layer ${layer}`,
      `its attention cannot be removed: ${reason}`,
      'leave this layer out',
    ),
  cannotRemoveFfn: (layer: number, reason: string) =>
    modelError('OF_CANNOT_REMOVE', `layer ${layer}`, `its FFN cannot be removed: ${reason}`, 'leave this layer out'),
  unlikeBranches: (pass: string) =>
    modelError(
      'OF_UNLIKE_BRANCHES',
      `pass ${pass}`,
      'the two decoders under the If do not have the same layers, so they would not compute the same any more',
      'export the decoder without merging',
    ),
  cannotFuse: (layer: string, reason: string) =>
    modelError('OF_CANNOT_FUSE', `layer ${layer}`, `cannot be in a run: ${reason}`, 'choose other runs'),
  plugin: (place: string, why: string, remedy: string) => usageError('OF_PLUGIN', place, why, remedy),
  /** `cause` is kept: the command line shows its stack when DEBUG is set. */
  pluginFailed: (pass: string, cause: unknown) => {
    const name = cause instanceof Error && cause.name !== 'Error' ? `${cause.name}: ` : '';
    const text = `threw ${name}${reasonOf(cause)}`;
    const made = systemError('OF_PLUGIN', `pass ${pass}`, text, 'mend the plugin; DEBUG=1 shows the stack');
    made.cause = cause;
    return made;
  },
};
