/** The errors that the runtime can raise. */
import { catalogue } from '../../ir/diagnostic.js';

/** The catalogue of this layer. */
export const runtimeErrors = catalogue({
  cannotInstrument: {
    code: 'OF_CANNOT_INSTRUMENT',
    kind: 'model',
    about: 'The model has no residual stream on which the effect of each layer can be measured.',
    remedy: 'choose the layers yourself',
    message: (place: string, reason: string) => ({ place, text: `its branches cannot have gates: ${reason}` }),
  },
  noRuntime: {
    code: 'OF_NO_RUNTIME',
    kind: 'system',
    about: 'onnxruntime-node, which runs models, is not installed or does not start here.',
    remedy: 'npm install onnxruntime-node',
    message: (why: string) => ({ place: 'onnxruntime-node', text: `it cannot be loaded: ${why}` }),
  },
  noProvider: {
    code: 'OF_NO_PROVIDER',
    kind: 'system',
    about: 'The hardware or a library that an execution provider of onnxruntime needs is not there.',
    remedy: 'use cpu, or install its libraries',
    message: (provider: string, why: string, remedy?: string) => ({
      place: `provider '${provider}'`,
      text: `it is not available: ${why}`,
      remedy,
    }),
  },
  providerFallback: {
    code: 'OF_PROVIDER_FALLBACK',
    kind: 'system',
    about: 'The CPU did work of the model that was meant for another execution provider.',
    remedy: 'use cpu, a provider or an element type with kernels for these, or accept it (option allow-fallback)',
    /** `nodes` are op types with counts. */
    message: (provider: string, model: string, nodes: string) => ({
      place: `provider '${provider}'`,
      text: `the CPU ran work of ${model} instead: ${nodes}`,
    }),
  },
  memory: {
    code: 'OF_MEMORY',
    kind: 'system',
    about: 'Running the model needs more memory than is free.',
    remedy: 'free some, or run it on a larger machine',
    message: (file: string, need: number, have: number) => ({
      place: file,
      text: `running it needs about ${(need / 2 ** 30).toFixed(1)} GiB of memory, ${(have / 2 ** 30).toFixed(1)} are free`,
    }),
  },
  unfounded: {
    code: 'OF_MEMORY',
    kind: 'model',
    about: 'The model makes tensors that are far larger than all that is in its file.',
    remedy: 'it is damaged or hostile; fuse or shard it without the check (option verify)',
    message: (file: string, what: string, size: string, limit: string) => ({
      place: file,
      text: `${what} would take ${size}, more than the ${limit} that a model of this size is run with`,
    }),
  },
  cannotFeed: {
    code: 'OF_CANNOT_FEED',
    kind: 'model',
    about: 'The model has an input for which no sensible value can be made up.',
    remedy: 'fuse or shard it without the check (option verify)',
    message: (input: string, why: string) => ({
      place: `graph input '${input}'`,
      text: `no value can be made for it: ${why}`,
    }),
  },
  notComparable: {
    code: 'OF_NOT_COMPARABLE',
    kind: 'model',
    about: 'Two models, or a model and what it should give, have no outputs that can be compared.',
    remedy: 'compare models that share their outputs',
    message: (output: string, why: string) => ({ place: `output '${output}'`, text: why }),
  },
  runtimeFailed: {
    code: 'OF_RUNTIME',
    kind: 'system',
    about: 'onnxruntime cannot load or run the model.',
    remedy: 'it cannot be run here; fuse or shard it without the check (option verify)',
    message: (place: string, why: string) => ({ place, text: `onnxruntime failed: ${why}` }),
  },
});
