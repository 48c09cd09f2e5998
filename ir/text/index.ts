/** ONNX models as text. */
export type { Resolve } from './expression.js';
export type { Digest } from './notes.js';
export { type ParseOptions, parseModel } from './parse.js';
export { type PrintOptions, printGraph, printModel } from './print.js';
