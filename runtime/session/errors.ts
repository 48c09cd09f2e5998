/** The errors that the runtime can raise. */
import { modelError, systemError } from '../../ir/diagnostic.js';

/** The catalogue of this layer. Codes are stable: scripts match on them. */
export const runtimeErrors = {
  cannotInstrument: (place: string, reason: string) =>
    modelError(
      'OF_CANNOT_INSTRUMENT',
      place,
      `its branches cannot have gates: ${reason}`,
      'choose the layers yourself',
    ),
  noRuntime: (why: string) =>
    systemError('OF_NO_RUNTIME', 'onnxruntime-node', `cannot be loaded: ${why}`, 'npm install onnxruntime-node'),
  noProvider: (provider: string, why: string, remedy = 'use cpu, or install its libraries') =>
    systemError('OF_NO_PROVIDER', `provider '${provider}'`, `not available: ${why}`, remedy),
  /** `nodes` are op types with counts. */
  providerFallback: (provider: string, model: string, nodes: string) =>
    systemError(
      'OF_PROVIDER_FALLBACK',
      `provider '${provider}'`,
      `the CPU ran work of ${model} instead: ${nodes}`,
      'use cpu, a provider or an element type with kernels for these, or --allow-fallback',
    ),
  memory: (file: string, need: number, have: number) =>
    systemError(
      'OF_MEMORY',
      file,
      `running it needs about ${(need / 2 ** 30).toFixed(1)} GiB of memory, ${(have / 2 ** 30).toFixed(1)} are free`,
      'free some, or run it on a larger machine',
    ),
  cannotFeed: (input: string, why: string) =>
    modelError(
      'OF_CANNOT_FEED',
      `graph input '${input}'`,
      `no value can be made for it: ${why}`,
      '--no-verify skips the check',
    ),
  notComparable: (output: string, why: string) =>
    modelError('OF_NOT_COMPARABLE', `output '${output}'`, why, 'compare models that share their outputs'),
  runtimeFailed: (place: string, why: string) =>
    systemError(
      'OF_RUNTIME',
      place,
      `onnxruntime failed: ${why}`,
      'it cannot be run here; --no-verify fuses it unchecked',
    ),
};
