/** ONNX models as text. */

export type { Digest } from '../weight-types.js';
export type { Resolve } from './expression.js';
export { type ParseOptions, parseModel } from './parse.js';
export { type PrintOptions, printGraph, printModel } from './print.js';
