import * as assert from 'uvu/assert';
import {
  canonicalUnlike,
  decodeMessage,
  encodeMessage,
  type MessageName,
  type Messages,
  toLong,
} from '../../../ir/proto/messages.js';
import { suite } from '../../helpers/suite.js';

const test = suite('what is canonical, read off the bytes');

const shape = { dim: [{ dimValue: toLong(-1) }, { dimParam: 'batch' }, { dimValue: toLong(2n ** 40n) }, {}] };
const entry = { key: 'namespace', value: '' };
const SAMPLES: readonly (readonly [MessageName, object])[] = [
  [
    'ModelProto',
    { irVersion: toLong(8), producerName: 'a', metadataProps: [entry], configuration: [{ numDevices: 3 }] },
  ],
  ['NodeProto', { input: ['a', '', 'b'], output: ['c'], name: 'é', opType: 'Add', domain: '', metadataProps: [entry] }],
  [
    'NodeProto',
    { input: ['a'], deviceConfigurations: [{ pipelineStage: -1, shardingSpec: [{ device: [toLong(1)] }] }] },
  ],
  ['AttributeProto', { name: 'x', f: 1.5, type: 1 }],
  ['AttributeProto', { name: 'x', ints: [toLong(0), toLong(300), toLong(2n ** 62n)], type: 7, refAttrName: 'y' }],
  ['AttributeProto', { name: 'x', s: new Uint8Array([255, 0]), floats: [0, -3, Number.POSITIVE_INFINITY], tp: {} }],
  ['TensorProto', { dims: [toLong(2), toLong(3)], dataType: 1, name: 'w', externalData: [entry], dataLocation: 1 }],
  ['ValueInfoProto', { name: 'v', type: { tensorType: { elemType: 1, shape }, denotation: 'D' } }],
  ['TypeProto', { tensorType: { elemType: 2 ** 31 - 1, shape: {} } }],
  // Several of a oneof are written as one.
  ['TypeProto', { sequenceType: { elemType: {} } }],
  ['TypeProto', { opaqueType: { domain: 'd', name: 'n' } }],
  ['OperatorSetIdProto', { domain: '', version: toLong(17) }],
];

function isCanonical(name: MessageName, wire: Uint8Array): boolean {
  return Buffer.compare(encodeMessage(name, decodeMessage(name, wire)), wire) === 0;
}

test('it is what encoding again says, whatever is done to a message', () => {
  let seed = 16;
  const integer = (from: number, to: number): number => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return from + (Math.floor(seed / 256) % (to - from + 1));
  };
  const pick = <T>(all: readonly T[]): T => all[integer(0, all.length - 1)] as T;
  const counts = { canonical: 0, other: 0 };
  for (let round = 0; round < 60_000; round++) {
    const [name, sample] = pick(SAMPLES);
    const bytes = [...encodeMessage(name, sample as Messages[MessageName])];
    for (let change = integer(0, 3); change > 0; change--) {
      const at = integer(0, bytes.length);
      const kind = integer(0, 4);
      if (kind === 0) bytes[at] = pick([0, 1, 127, 128, 255, integer(0, 255)]);
      else if (kind === 1) bytes.splice(at, 0, pick([0, 8, 128, 255, integer(0, 255)]));
      else if (kind === 2) bytes.splice(at, integer(1, 3));
      else if (kind === 3) bytes.push(...bytes.slice(at, at + integer(1, 8)));
      else bytes.push(...encodeMessage(name, pick(SAMPLES.filter(([other]) => other === name))[1] as object));
    }
    const wire = Uint8Array.from(bytes);
    let expected: boolean;
    try {
      expected = isCanonical(name, wire);
    } catch {
      continue;
    }
    counts[expected ? 'canonical' : 'other']++;
    assert.is(canonicalUnlike(name, decodeMessage(name, wire), wire) === null, expected, `${name} ${wire}`);
  }
  assert.ok(counts.canonical > 5000 && counts.other > 3000, JSON.stringify(counts));
});

test.run();
