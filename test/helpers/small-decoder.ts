/** A decoder of five small layers as exporters write them, on disk with external data, alone or as a folder of onnxruntime-genai. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DecoderSpec, Form } from '../bench/decoder.js';
import { writeDecoder } from '../bench/make-decoder.js';

const LAYERS = 5;

function specOf(form: Form): DecoderSpec {
  const layers = Array.from({ length: LAYERS }, () => ({ attention: true, width: 48 }));
  return { form, dtype: 'float', hidden: 64, heads: 4, kvHeads: 2, headSize: 16, vocabulary: 96, layers };
}

/** Writes `small.onnx` and its data into `folder`; gives the path of the model. */
export function writeSmallDecoder(folder: string, form: Form = 'skip'): string {
  return writeDecoder(join(folder, 'small.onnx'), specOf(form)).path;
}

/** Makes `folder` with `model.onnx`, its data and a genai_config.json whose decoder has `more` besides. */
export function writeGenaiFolder(folder: string, form: Form = 'skip', more: object = {}): void {
  mkdirSync(folder);
  writeDecoder(join(folder, 'model.onnx'), specOf(form));
  const decoder = {
    filename: 'model.onnx',
    num_hidden_layers: LAYERS,
    inputs: { past_key_names: 'past_key_values.%d.key', past_value_names: 'past_key_values.%d.value' },
    outputs: { present_key_names: 'present.%d.key', present_value_names: 'present.%d.value' },
    ...more,
  };
  writeFileSync(join(folder, 'genai_config.json'), JSON.stringify({ model: { type: 'llama', decoder } }));
}
