/** Hand-made ONNX files: messages field by field, so that a test can write what no exporter does. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import protobuf from 'protobufjs';
import { evaluate } from '../../../ir/disk/tile.js';
import { Diagnostic, type Model } from '../../../ir/index.js';
import { type ExternalLocator, encodeModel } from '../../../ir/proto/encode.js';

/** A field: number and value. Numbers are varints, strings, bytes and messages are length-delimited. */
export type FieldSpec = readonly [number: number, value: number | bigint | string | Uint8Array];

export function message(...fields: readonly FieldSpec[]): Uint8Array {
  const writer = new protobuf.Writer();
  for (const [number, value] of fields) {
    if (typeof value === 'string') writer.uint32(number * 8 + 2).string(value);
    else if (value instanceof Uint8Array) writer.uint32(number * 8 + 2).bytes(value);
    else writer.uint32(number * 8).int64(String(value) as unknown as number);
  }
  return Uint8Array.from(writer.finish());
}

export function rawBytes(...values: readonly number[]): Uint8Array {
  return new Uint8Array(Float32Array.from(values).buffer);
}

/** ValueInfoProto of a float tensor. */
export function info(name: string, dims: readonly number[] = [2]): Uint8Array {
  const shape = message(...dims.map((dim) => [1, message([1, dim])] as const));
  return message([1, name], [2, message([1, message([1, 1], [2, shape])])]);
}

export function node(opType: string, inputs: readonly string[], outputs: readonly string[], ...more: FieldSpec[]) {
  return message(
    ...inputs.map((name) => [1, name] as const),
    ...outputs.map((name) => [2, name] as const),
    [4, opType],
    ...more,
  );
}

/** TensorProto of float raw_data. */
export function floats(name: string, values: readonly number[], dims: readonly number[] = [values.length]): Uint8Array {
  return message(...dims.map((dim) => [1, dim] as const), [2, 1], [8, name], [9, rawBytes(...values)]);
}

/** TensorProto with external data; entries with null are left out. */
export function external(
  name: string,
  dims: readonly number[],
  entries: Readonly<Record<string, string | number>>,
): Uint8Array {
  const pairs = Object.entries(entries).map(([key, value]) => [13, message([1, key], [2, String(value)])] as const);
  return message(...dims.map((dim) => [1, dim] as const), [2, 1], [8, name], ...pairs, [14, 1]);
}

/** ModelProto of IR version 10 around the fields of a GraphProto. */
export function modelOf(...graph: readonly FieldSpec[]): Uint8Array {
  return message([1, 10], [7, message(...graph)], [8, message([1, ''], [2, 21])]);
}

/** y = x + w. */
export function smallModel(): Uint8Array {
  return modelOf(
    [1, node('Add', ['x', 'w'], ['y'], [3, 'add'])],
    [2, 'small'],
    [5, floats('w', [1, 2])],
    [11, info('x')],
    [12, info('y')],
  );
}

/** The bytes that a model is written as, weights evaluated. */
export function encoded(model: Model, place?: ExternalLocator): Buffer {
  const rope = encodeModel(model, place);
  const bytes = Buffer.concat(rope.chunks.map((chunk) => (chunk instanceof Uint8Array ? chunk : evaluate(chunk))));
  if (bytes.length !== rope.byteLength) throw new Error(`${bytes.length} bytes, ${rope.byteLength} announced`);
  return bytes;
}

/** The code of the diagnostic that `work` throws. Anything else it throws is thrown on. */
export function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof Diagnostic) return error.code;
    throw error;
  }
  return 'nothing was thrown';
}

export async function codeOfAsync(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof Diagnostic) return error.code;
    throw error;
  }
  return 'nothing was thrown';
}

/** Runs `work` with a folder that is removed afterwards. */
export async function withFolder<T>(work: (folder: string) => T | Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'onnx-fuse-test-'));
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
