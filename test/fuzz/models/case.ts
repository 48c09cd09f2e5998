/** Mutated files by number, what is asked of onnxruntime about them, and how a failing one is made smaller. */
import { Wrong } from '../failure.js';
import { Random, seedOf } from '../random.js';
import { encodeMessage, type Message, messagesIn, parseMessage } from '../wire.js';
import { type Base, bases } from './bases.js';
import { checkModel } from './check.js';
import { mutateGraph } from './graph-mutations.js';
import type { Ort } from './ort.js';
import { damaged, mutateFields } from './wire-mutations.js';

let known: readonly Base[] | null = null;

/** The file of case `index`. */
export function mutatedModel(run: number, index: number): { bytes: Uint8Array; base: string } {
  known ??= bases();
  const random = new Random(seedOf(run, index));
  const base = random.pick(known);
  const model = parseMessage(base.bytes(), 'model');
  const isWire = random.chance(0.4);
  for (let i = random.pick([1, 1, 2, 3, 5]); i > 0; i--) {
    if (isWire) mutateFields(model, random);
    else mutateGraph(model, random);
  }
  const made = encodeMessage(model);
  return { bytes: isWire && random.chance(0.4) ? damaged(made, random) : made, base: base.name };
}

/** Counts by what came out. Throws for a failure. */
export async function runModel(bytes: Uint8Array, folder: string, ort: Ort | null): Promise<Record<string, number>> {
  const { refused, refusals, written } = checkModel(bytes, folder);
  if (refused !== null) return { refused: 1 };
  const counts: Record<string, number> = { accepted: 1, refusals, written: written.length };
  if (!ort || written.length === 0) return counts;
  const original = await ort.ask({ bytes, reference: null, folder });
  if (!original?.loads) return { ...counts, unloadable: 1 };
  const count = (name: string): void => {
    counts[name] = (counts[name] ?? 0) + 1;
  };
  for (const { bytes: made, reference, pipeline } of written) {
    const loaded = await ort.ask({ bytes: made, reference: null, folder });
    if (!loaded) throw new Wrong('onnxruntime', `it dies of what ${pipeline} makes of a model that it loads`);
    if (!loaded.loads) {
      // Some operators look at their operands only when they run, and some sizes that are stated are believed until then.
      const itself = await ort.ask({ bytes, reference: bytes, folder });
      if (!itself?.fails && !(ENDLESS.test(loaded.why ?? '') && itself?.relative === undefined))
        throw new Wrong('unloadable', `${loaded.why} (${pipeline})`);
      count('contradictory');
      continue;
    }
    if (!reference) continue;
    const run = await ort.ask({ bytes: made, reference, folder });
    // A reference may be too large to run, or run into a fault of onnxruntime's own.
    if (run?.relative === undefined || run.tolerance === undefined) {
      count('not run');
      continue;
    }
    if (run.relative > run.tolerance) {
      throw new Wrong('different', `by ${run.relative.toExponential(2)} of ${run.tolerance} after ${pipeline}`);
    }
    count('compared');
  }
  return { ...counts, loaded: written.length - (counts['contradictory'] ?? 0) };
}

/** Sizes of an input that nothing has: widths that are joined may exceed the numbers that sizes are counted with. */
const ENDLESS = /Dimension product overflow/;

/** Smaller files that may fail alike, the smallest first: parts of the tree left out. */
export function* smallerModels(bytes: Uint8Array): Generator<Uint8Array> {
  let tree: Message;
  try {
    tree = parseMessage(bytes, 'model');
  } catch {
    // No tree: cut the bytes.
    for (let size = bytes.length >> 1; size > 0; size >>= 1) {
      for (let at = 0; at + size <= bytes.length; at += size)
        yield Buffer.concat([bytes.slice(0, at), bytes.slice(at + size)]);
    }
    return;
  }
  const messages = [...messagesIn(tree)].map(([message]) => message);
  for (let size = 64; size > 0; size >>= 2) {
    for (const message of messages) {
      const all = message.fields;
      for (let at = 0; at < all.length; at += size) {
        if (size > 1 && all.length <= size / 4) continue;
        message.fields = [...all.slice(0, at), ...all.slice(at + size)];
        yield encodeMessage(tree);
      }
      message.fields = all;
    }
  }
}

/** How many nodes a file has, for the log; 0 where it cannot be read. */
export function nodeCount(bytes: Uint8Array): number {
  try {
    return [...messagesIn(parseMessage(bytes, 'model'))].filter(([{ kind }]) => kind === 'node').length;
  } catch {
    return 0;
  }
}
