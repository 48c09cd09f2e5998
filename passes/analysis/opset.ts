/** Which version of the standard operators a model is written in. */
import type { Model } from '../../ir/core.js';

/** Where they are not imported onnxruntime takes the newest that it has. */
export function standardOpset(model: Model): number {
  return model.opset('') ?? model.opset('ai.onnx') ?? Number.POSITIVE_INFINITY;
}
