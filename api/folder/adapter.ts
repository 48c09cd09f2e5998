/**
 * LoRA adapters of onnxruntime (.onnx_adapter, a FlatBuffer): values for graph inputs, by name. onnxruntime refuses one
 * that names an input that is not there, so what went with removed layers is taken out of its list. Nothing else in the
 * file is touched: a list of offsets becomes shorter, and what it does not lead to any more is not read.
 */
import { copyFile, open } from 'node:fs/promises';
import { FileSource, readRange } from '../../ir/index.js';

/** Slot of the list of parameters in the root table, and of the name in a parameter. */
const PARAMETERS = 3;
const NAME = 0;
const MOST_PARAMETERS = 100_000;
const LONGEST_NAME = 4096;

interface Parameter {
  readonly name: string;
  /** Offset of its table in the file. */
  readonly table: number;
}

export interface Adapter {
  readonly path: string;
  /** Offset of the list: a count, then an offset for each parameter, relative to where it stands. */
  readonly list: number;
  readonly parameters: readonly Parameter[];
}

/** Reads the names; null for a file that is no adapter. */
export function readAdapter(path: string): Adapter | null {
  const source = new FileSource(path);
  try {
    return readParameters(path, source);
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  } finally {
    source.close();
  }
}

function readParameters(path: string, source: FileSource): Adapter | null {
  const bytes = (at: number, length: number): Buffer => {
    if (!(at >= 0 && length >= 0 && at + length <= source.size)) throw new RangeError(`${at}+${length}`);
    return Buffer.from(readRange(source, at, length));
  };
  const u32 = (at: number): number => bytes(at, 4).readUInt32LE();
  /** Where field number `slot` of the table at `table` is; null when it is absent. */
  const field = (table: number, slot: number): number | null => {
    const entries = table - bytes(table, 4).readInt32LE();
    if (4 + 2 * slot >= bytes(entries, 2).readUInt16LE()) return null;
    const at = bytes(entries + 4 + 2 * slot, 2).readUInt16LE();
    return at === 0 ? null : table + at;
  };
  if (bytes(4, 4).toString('latin1') !== 'TORT') return null;
  const place = field(u32(0), PARAMETERS);
  if (place === null) return { path, list: 0, parameters: [] };
  const list = place + u32(place);
  const count = u32(list);
  if (count > MOST_PARAMETERS) return null;
  const parameters = Array.from({ length: count }, (_, i): Parameter => {
    const at = list + 4 + 4 * i;
    const table = at + u32(at);
    const name = field(table, NAME);
    if (name === null) return { name: '', table };
    const text = name + u32(name);
    const length = u32(text);
    if (length > LONGEST_NAME) throw new RangeError('the name is too long');
    return { name: bytes(text + 4, length).toString('utf8'), table };
  });
  return { path, list, parameters };
}

/** Writes the adapter to `to` with those parameters alone that `isKept` wants. */
export async function writeAdapter(
  { path, list, parameters }: Adapter,
  isKept: (name: string) => boolean,
  to: string,
): Promise<void> {
  await copyFile(path, to);
  const kept = parameters.filter(({ name }) => isKept(name));
  if (kept.length === parameters.length) return;
  const words = new Uint8Array(4 * (1 + kept.length));
  const view = new DataView(words.buffer);
  view.setUint32(0, kept.length, true);
  for (const [i, { table }] of kept.entries()) view.setUint32(4 + 4 * i, table - (list + 4 + 4 * i), true);
  const file = await open(to, 'r+');
  await file.write(words, 0, words.length, list).finally(() => file.close());
}
