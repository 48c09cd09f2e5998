/** The errors that passes can raise. */
import { catalogue, reasonOf } from '../../ir/diagnostic.js';

/** The catalogue of this layer. */
export const passErrors = catalogue({
  invalidGraph: {
    code: 'OF_INVALID_GRAPH',
    kind: 'model',
    about: 'A pass left the graph in a state that breaks a rule of ONNX.',
    remedy: 'this is a bug in the pass named here; please report it',
    message: (place: string, why: string) => ({ place, text: why }),
  },
  noSuchLayer: {
    code: 'OF_NO_SUCH_LAYER',
    kind: 'usage',
    about: 'A layer was named that the model does not have.',
    remedy: 'see onnx-fuse inspect',
    message: (layer: number, layers: string) => ({
      place: `layer ${layer}`,
      text: `the model has no such layer; it has ${layers}`,
    }),
  },
  cannotRemove: {
    code: 'OF_CANNOT_REMOVE',
    kind: 'model',
    about: 'The attention or the FFN of a layer cannot be taken out: it has none, or the model would break without it.',
    remedy: 'leave it out, or go on with the rest (option keep-going)',
    message: (layer: number, part: 'attention' | 'FFN', reason: string, others: readonly number[] = []) => ({
      place: `layer ${layer}`,
      text:
        `its ${part} cannot be removed: ${reason}` +
        (others.length > 0 ? `; nor can that of layer${others.length > 1 ? 's' : ''} ${others.join(', ')}` : ''),
    }),
  },
  unlikeBranches: {
    code: 'OF_UNLIKE_BRANCHES',
    kind: 'model',
    about: 'The decoder with caches and the decoder without, merged under one If, have different layers.',
    remedy: 'export the decoder without merging',
    message: (pass: string) => ({
      place: `pass ${pass}`,
      text: 'the two decoders under the If do not have the same layers, so they would not compute the same any more',
    }),
  },
  cannotFuse: {
    code: 'OF_CANNOT_FUSE',
    kind: 'model',
    about: 'A layer that was asked for cannot be in a run of layers that are fused or made parallel.',
    remedy: 'choose other runs, or go on with the rest (option keep-going)',
    message: (layer: string, reason: string) => ({
      place: `layer ${layer}`,
      text: `it cannot be in a run: ${reason}`,
    }),
  },
  fit: {
    code: 'OF_FIT',
    kind: 'usage',
    about: 'The file of fitted maps cannot be read, or has no map that fits a branch that was named.',
    remedy: 'fit the maps on this very model, and name the layers that they are for',
    message: (place: string, why: string, remedy?: string) => ({ place, text: why, remedy }),
  },
  plugin: {
    code: 'OF_PLUGIN',
    kind: 'usage',
    about: 'A module with passes of your own cannot be loaded, or what it exports is no pass.',
    remedy: 'see definePass of onnx-fuse/passes',
    message: (place: string, why: string, remedy?: string) => ({ place, text: why, remedy }),
  },
  pluginFailed: {
    code: 'OF_PLUGIN',
    kind: 'system',
    about: 'A pass of your own threw an error while it ran.',
    remedy: 'mend the plugin; DEBUG=1 shows the stack',
    message: (pass: string, cause: unknown) => {
      const name = cause instanceof Error && cause.name !== 'Error' ? `${cause.name}: ` : '';
      return { place: `pass ${pass}`, text: `it threw ${name}${reasonOf(cause)}`, cause };
    },
  },
});
