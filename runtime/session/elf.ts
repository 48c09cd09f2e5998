/** What a shared library of Linux asks for, read from its dynamic section (System V ABI, chapter 5). */
import { closeSync, openSync, readSync } from 'node:fs';

/** What a shared library needs, and where it looks. */
export interface SharedLibrary {
  /** Names of the libraries it needs (DT_NEEDED). */
  readonly needed: readonly string[];
  /** Folders it looks in first (DT_RPATH, DT_RUNPATH), as written: `$ORIGIN` is its own. */
  readonly searched: readonly string[];
}

const LOAD = 1;
const DYNAMIC = 2;
const TAG = { needed: 1n, strings: 5n, stringBytes: 10n, rpath: 15n, runpath: 29n };
/** Larger tables are no dynamic section of anything we look at. */
const MOST = 2 ** 24;

/** Reads a 64-bit little-endian ELF file; null when it is something else. Other faults throw. */
export function readSharedLibrary(path: string): SharedLibrary | null {
  const file = openSync(path, 'r');
  try {
    const read = (at: number, bytes: number): Buffer => {
      const found = Buffer.alloc(Math.min(bytes, MOST));
      return found.subarray(0, readSync(file, found, 0, found.length, at));
    };
    const header = read(0, 64);
    if (header.length < 64 || header.readUInt32BE(0) !== 0x7f454c46 || header[4] !== 2 || header[5] !== 1) return null;
    const [size, count] = [header.readUInt16LE(54), header.readUInt16LE(56)];
    const table = read(Number(header.readBigUInt64LE(32)), size * count);
    const segments = Array.from({ length: count }, (_, i) => {
      const at = table.subarray(i * size);
      return { type: at.readUInt32LE(0), offset: word(at, 8), address: word(at, 16), bytes: word(at, 32) };
    });
    const dynamic = segments.find(({ type }) => type === DYNAMIC);
    if (!dynamic) return null;
    const entries = read(dynamic.offset, dynamic.bytes);
    const values = (tag: bigint): number[] => {
      const found: number[] = [];
      for (let at = 0; at + 16 <= entries.length; at += 16) {
        if (entries.readBigUInt64LE(at) === tag) found.push(word(entries, at + 8));
      }
      return found;
    };
    const [address = -1] = values(TAG.strings);
    const within = segments.find((s) => s.type === LOAD && address >= s.address && address < s.address + s.bytes);
    if (!within) return null;
    const strings = read(within.offset + address - within.address, values(TAG.stringBytes)[0] ?? 0);
    const text = (at: number): string => strings.toString('utf8', at, strings.indexOf(0, at));
    return {
      needed: values(TAG.needed).map(text),
      searched: [...values(TAG.rpath), ...values(TAG.runpath)].flatMap((at) => text(at).split(':')),
    };
  } finally {
    closeSync(file);
  }
}

const word = (bytes: Buffer, at: number): number => Number(bytes.readBigUInt64LE(at));
