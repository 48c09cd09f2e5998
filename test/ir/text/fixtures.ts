/** What the tests of the text share. */
import * as assert from 'uvu/assert';
import { type ByteSource, type Model, openModelBytes, parseModel, printModel, verifyModel } from '../../../ir/index.js';
import { sourcesOf } from '../../../ir/proto/decode.js';
import { encoded } from '../proto/fixtures.js';

/** Finds the sources of a model by the end of their path, as the default locations name them. */
export function resolverOf(model: Model): (location: string) => ByteSource {
  return (location) => {
    const found = sourcesOf(model).find((source) =>
      ('path' in source ? String(source.path) : source.id).endsWith(location),
    );
    assert.ok(found, `no source ends in ${location}`);
    return found;
  };
}

/** Prints, parses, prints again and encodes: all has to stay the same. Returns the text and what was parsed from it. */
export function roundTrip(model: Model): { text: string; parsed: Model } {
  const text = printModel(model);
  const parsed = parseModel(text, { resolve: resolverOf(model) });
  assert.is(printModel(parsed), text);
  assert.ok(encoded(parsed).equals(encoded(model)), `other bytes from\n${text}`);
  assert.equal(verifyModel(parsed), verifyModel(model));
  return { text, parsed };
}

/** The same for a model given as bytes; these have to come out again, too. */
export function roundTripBytes(bytes: Uint8Array, folder = '/nowhere'): { text: string; parsed: Model } {
  const result = roundTrip(openModelBytes(bytes, folder));
  assert.ok(encoded(result.parsed).equals(bytes), `other bytes from\n${result.text}`);
  return result;
}

const HEADER = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>\n';

/** Parses the text of a graph under a header of its own. */
export function parseGraph(graph: string): Model {
  return parseModel(HEADER + graph);
}

/** Lines of a text without their indentation. */
export function linesOf(text: string): string[] {
  return text.split('\n').map((line) => line.trim());
}
