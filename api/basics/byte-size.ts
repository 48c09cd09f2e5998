/** Sizes as people write them. */
import { errors } from '../../ir/index.js';

const UNITS: ReadonlyMap<string, number> = new Map(
  Object.entries<number>({
    '': 1,
    b: 1,
    kb: 1e3,
    mb: 1e6,
    gb: 1e9,
    tb: 1e12,
    kib: 2 ** 10,
    mib: 2 ** 20,
    gib: 2 ** 30,
    tib: 2 ** 40,
  }),
);

/** Bytes of `5GB`, `1.5 GiB` or `4096`. Throws OF_USAGE, with `place` as the place. */
export function parseByteSize(text: string, place: string): number {
  const match = /^(\d+(?:\.\d+)?) *([a-z]*)$/i.exec(text.trim());
  const unit = UNITS.get(match?.[2]?.toLowerCase() ?? '');
  const bytes = Math.floor(Number(match?.[1]) * (unit ?? Number.NaN));
  if (!Number.isSafeInteger(bytes) || bytes < 1) {
    throw errors.usage(place, `'${text}' is no size`, 'write it like 5GB, 1.5GiB or 500000000');
  }
  return bytes;
}

/** 1536 -> `1.5 KiB`. */
export function sizeText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`;
}

/** Large numbers, short: 12, 12.0 k, 2.28 M, 7.00 B. */
export function countText(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(2)} B`;
  if (count >= 1e6) return `${(count / 1e6).toFixed(2)} M`;
  return count >= 1e4 ? `${(count / 1e3).toFixed(1)} k` : String(count);
}
