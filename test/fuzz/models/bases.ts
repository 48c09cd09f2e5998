/** The small models that are mutated: the inputs of the golden files, decoders of the generator, a few of other kinds. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ReadableSource } from '../../../ir/bytes.js';
import { referenceBytes } from '../../../ir/disk/model.js';
import { parseModel } from '../../../ir/text/index.js';
import { mix } from '../../../runtime/run/random.js';
import { ROOT } from '../../helpers/paths.js';
import { tinyDecoder } from '../../helpers/tiny-decoder.js';
import { decoderBytes } from '../decoders/build.js';
import { randomDecoder } from '../decoders/spec.js';
import { Random } from '../random.js';

export interface Base {
  readonly name: string;
  /** Its bytes, made when they are wanted. */
  bytes(): Uint8Array;
}

const DECODERS = 40;

/** All of them, in an order that does not depend on the machine. */
export function bases(): readonly Base[] {
  const folder = join(ROOT, 'golden');
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.golden'));
  return [
    ...files.sort().map((file) => once(file.replaceAll('\\', '/'), () => golden(join(folder, file)))),
    once('tiny-decoder', () => referenceBytes(tinyDecoder(), '.')),
    ...Array.from({ length: DECODERS }, (_, i) => once(`decoder-${i}`, () => decoder(i))),
  ];
}

function once(name: string, make: () => Uint8Array): Base {
  let made: Uint8Array | null = null;
  return {
    name,
    bytes: () => {
      made ??= make();
      return made;
    },
  };
}

function golden(file: string): Uint8Array {
  const input = /^== input\n([\s\S]*?)^== /m.exec(readFileSync(file, 'utf8'))?.[1] ?? '';
  return referenceBytes(parseModel(input, { resolve: endless }), '.');
}

function decoder(i: number): Uint8Array {
  const spec = randomDecoder(new Random(mix(0xba5e, i)));
  return decoderBytes({ ...spec, layers: spec.layers.slice(0, 3) });
}

const sources = new Map<string, ReadableSource>();

/** The data file that golden texts name: any bytes will do, as long as floats among them are small. */
export function endless(location: string): ReadableSource {
  const isFloat = location.endsWith('.f32');
  const source: ReadableSource = {
    id: `fuzz|${location}`,
    size: Number.MAX_SAFE_INTEGER,
    readInto: (target, at, length, offset) => {
      const word = new DataView(new ArrayBuffer(4));
      for (let i = 0; i < length; i++) {
        const place = offset + i;
        if (isFloat) word.setFloat32(0, mix(7, Math.floor(place / 4)) / 2 ** 32 - 0.5, true);
        // Of 16-bit floats the high byte decides: around one half.
        else if (place % 2 === 1 && !location.endsWith('.u8'))
          word.setUint8(place % 4, location.endsWith('.bf16') ? 0x3e : 0x34);
        else word.setUint8(place % 4, mix(7, place) & 255);
        target[at + i] = word.getUint8(place % 4);
      }
    },
  };
  const known = sources.get(location) ?? source;
  sources.set(location, known);
  return known;
}
