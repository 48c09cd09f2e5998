/** Token ids in a .npy file (NumPy format 1.0 to 3.0): integers, one or two dimensions, C order. */

import { closeSync, readSync } from 'node:fs';
import { counted } from '../../ir/visible.js';
import { apiErrors } from '../basics/errors.js';
import { inputError, openInput } from '../basics/small-file.js';

type Read = (view: DataView, offset: number) => number;

/** Element types by NumPy's descr, little-endian. */
const TYPES: ReadonlyMap<string, readonly [bytes: number, read: Read]> = new Map(
  Object.entries<readonly [bytes: number, read: Read]>({
    '|u1': [1, (view, at) => view.getUint8(at)],
    '|i1': [1, (view, at) => view.getInt8(at)],
    '<u2': [2, (view, at) => view.getUint16(at, true)],
    '<i2': [2, (view, at) => view.getInt16(at, true)],
    '<u4': [4, (view, at) => view.getUint32(at, true)],
    '<i4': [4, (view, at) => view.getInt32(at, true)],
    '<u8': [8, (view, at) => Number(view.getBigUint64(at, true))],
    '<i8': [8, (view, at) => Number(view.getBigInt64(at, true))],
  }),
);

const MAGIC = '\x93NUMPY';

/**
 * The rows of a two-dimensional array, or a one-dimensional one as one row, until about `limit` elements are read.
 * @throws Diagnostic OF_TOKEN_DATA for a file that is none or of another type; OF_NO_SUCH_FILE.
 */
export function* readNpyRows(path: string, limit: number): Generator<number[]> {
  const bad = (why: string) => apiErrors.tokenData(path, why);
  const { file, size } = openInput(path);
  try {
    const bytesAt = (offset: number, length: number): DataView => {
      const buffer = new Uint8Array(length);
      const got = readSync(file, buffer, 0, length, offset);
      if (got < length)
        throw bad(`the file ends early: ${counted(length, 'byte')} expected at offset ${offset}, found ${got}`);
      return new DataView(buffer.buffer);
    };
    const start = size >= 12 ? bytesAt(0, 12) : null;
    const magic = start && String.fromCharCode(...new Uint8Array(start.buffer, 0, 6));
    if (!start || magic !== MAGIC) throw bad('this is no .npy file');
    const major = start.getUint8(6);
    const at = major === 1 ? 10 : 12;
    const length = major === 1 ? start.getUint16(8, true) : start.getUint32(8, true);
    if (major < 1 || major > 3 || at + length > size) throw bad(`its header (version ${major}) is damaged`);
    if (length > 65536) throw bad(`its header has ${counted(length, 'byte')}`);
    const header = new TextDecoder('latin1').decode(bytesAt(at, length));
    const { rows, columns, bytes, read } = layoutOf(header, bad);
    const data = at + length;
    if (data + rows * columns * bytes > size) {
      throw bad(
        `${counted(rows * columns, 'element')} of ${counted(bytes, 'byte')} expected, found ${counted(size - data, 'byte')}`,
      );
    }
    // Rows without columns hold nothing, however many there are.
    for (let row = 0, done = 0; columns > 0 && row < rows && done < limit; row++, done += columns) {
      const count = Math.min(columns, limit - done);
      const view = bytesAt(data + row * columns * bytes, count * bytes);
      yield Array.from({ length: count }, (_, i) => read(view, i * bytes));
    }
  } catch (error) {
    throw inputError(path, error);
  } finally {
    closeSync(file);
  }
}

function layoutOf(header: string, bad: (why: string) => Error) {
  const type = /'descr'\s*:\s*'([^']*)'/.exec(header)?.[1];
  const shape = /'shape'\s*:\s*\(([\d\s,]*)\)/.exec(header)?.[1];
  if (type === undefined || shape === undefined) throw bad('its header does not tell type and shape');
  const known = TYPES.get(type);
  if (!known) throw bad(`its elements are '${type}', expected little-endian integers`);
  if (/'fortran_order'\s*:\s*True/.test(header)) throw bad('it is in Fortran order, expected C order');
  const dims = shape.split(',').flatMap((dim) => (dim.trim() ? Number(dim) : []));
  if (dims.length < 1 || dims.length > 2) throw bad(`it has ${counted(dims.length, 'dimension')}, expected 1 or 2`);
  const [rows, columns] = dims.length === 1 ? [1, dims[0] as number] : (dims as [number, number]);
  if (!Number.isSafeInteger(rows * columns * 8)) throw bad(`its shape (${shape}) is not usable`);
  return { rows, columns, bytes: known[0], read: known[1] };
}
