import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { BYTES, codecFor } from '../../../api/tokens/text-codec.js';
import { loadTokenData, type TokenDataOptions } from '../../../api/tokens/token-data.js';
import { suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';

const test = suite('cli: token data');

const NONE: TokenDataOptions = { vocabulary: 10, codec: null };

async function loaded(name: string, content: string | Uint8Array, options: TokenDataOptions = NONE) {
  return inWorkspace(async (folder) => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return loadTokenData(path, options);
  });
}

async function refusal(name: string, content: string | Uint8Array, options: TokenDataOptions = NONE): Promise<string> {
  try {
    await loaded(name, content, options);
  } catch (error) {
    return (error as Error).message.replace(/\/\S*\//g, '');
  }
  return 'nothing was refused';
}

/** A .npy file of version 1.0. */
function npy(descr: string, shape: string, data: Uint8Array, order = 'False'): Uint8Array {
  const header = `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': (${shape}), }\n`;
  const head = Uint8Array.from([0x93, ...Buffer.from('NUMPY'), 1, 0, header.length, 0]);
  return Buffer.concat([head, Buffer.from(header), data]);
}
const bytesOf = (array: Int32Array | Uint16Array | BigInt64Array): Uint8Array => new Uint8Array(array.buffer);

test('a line of JSON is an array of ids, an object with input_ids or a text', async () => {
  const { sequences, tokens, cut } = await loaded(
    'a.jsonl',
    '[1,2,3]\n\n{"input_ids":[4,5]}\r\n{"text":"\\u0001\\u0002"}\n',
    { vocabulary: 256, codec: BYTES },
  );
  assert.equal(
    [sequences, tokens, cut],
    [
      [
        [1, 2, 3],
        [4, 5],
        [1, 2],
      ],
      7,
      false,
    ],
  );
});

test('long records are cut into pieces, and a piece of one token is dropped', async () => {
  const { sequences } = await loaded('a.jsonl', '[0,1,2,3,4,5,6]\n[7]\n[8,9]', { ...NONE, length: 3 });
  assert.equal(sequences, [
    [0, 1, 2],
    [3, 4, 5],
    [8, 9],
  ]);
});

test('reading ends at the limit and the source says so', async () => {
  const data = await loaded('a.jsonl', '[0,1,2]\n[3,4,5]\nnot read', { ...NONE, maxTokens: 5 });
  assert.equal(data.sequences, [
    [0, 1, 2],
    [3, 4],
  ]);
  assert.ok(data.cut);
  assert.match(data.source, /^the first 5 tokens of .*a\.jsonl$/);
});

test('a limit that the file just reaches cuts nothing', async () => {
  assert.not((await loaded('a.jsonl', '[0,1,2]\n[3,4]\n', { ...NONE, maxTokens: 5 })).cut);
});

test('bad lines are refused with their number', async () => {
  assert.match(await refusal('a.jsonl', '[1,2]\n[1,10]'), 'a.jsonl:2: element 1 is 10, expected a token id below 10');
  for (const bad of ['-1', '1.5', '"1"', 'null', '[1]', '1e300']) {
    assert.match(
      await refusal('a.jsonl', `[1,${bad}]`),
      /^OF_TOKEN_DATA a\.jsonl:1: element 1 is .*expected a token id/,
    );
  }
  assert.match(await refusal('a.jsonl', '[1,2'), 'a.jsonl:1: it is no JSON');
  for (const bad of ['7', 'null', '{"ids":[1]}']) {
    assert.match(await refusal('a.jsonl', bad), 'a.jsonl:1: expected an array of ids');
  }
  assert.match(await refusal('a.jsonl', ''), 'no sequence of two or more tokens');
});

test('text without a tokenizer is refused', async () => {
  assert.match(await refusal('a.jsonl', '{"text":"hello"}'), 'a.jsonl:1: text needs a tokenizer');
  assert.match(await refusal('a.txt', 'hello'), 'a.txt: text needs a tokenizer');
});

test('a text file is its bytes for a model with a token per byte', async () => {
  const { sequences } = await loaded('a.txt', Uint8Array.from([104, 105, 255]), { vocabulary: 256, codec: BYTES });
  assert.equal(sequences, [[104, 105, 255]]);
});

test('integers of one or two dimensions are read from .npy', async () => {
  const two = npy('<i8', '2, 3', bytesOf(BigInt64Array.of(1n, 2n, 3n, 4n, 5n, 6n)));
  assert.equal((await loaded('a.npy', two)).sequences, [
    [1, 2, 3],
    [4, 5, 6],
  ]);
  const one = npy('<u2', '3,', bytesOf(Uint16Array.of(7, 8, 9)));
  assert.equal((await loaded('a.npy', one)).sequences, [[7, 8, 9]]);
  assert.equal((await loaded('a.npy', two, { ...NONE, maxTokens: 4 })).sequences, [[1, 2, 3]]);
});

test('.npy files that hold something else are refused', async () => {
  const data = bytesOf(Int32Array.of(1, 2, 3, 4));
  assert.match(await refusal('a.npy', 'hello, this is text'), 'this is no .npy file');
  assert.match(
    await refusal('a.npy', npy('<f4', '4,', data)),
    "its elements are '<f4', expected little-endian integers",
  );
  assert.match(await refusal('a.npy', npy('>i4', '4,', data)), "its elements are '>i4'");
  assert.match(await refusal('a.npy', npy('<i4', '2, 2', data, 'True')), 'Fortran order');
  assert.match(await refusal('a.npy', npy('<i4', '1, 2, 2', data)), 'it has 3 dimensions');
  assert.match(await refusal('a.npy', npy('<i4', '2, 4', data)), '8 elements of 4 bytes expected, found 16 bytes');
  assert.match(await refusal('a.npy', npy('<i4', '99999999, 99999999', data)), 'its shape (99999999, 99999999)');
  assert.match(
    await refusal('a.npy', npy('<i4', '2,', bytesOf(Int32Array.of(1, -1)))),
    'a.npy, row 0: element 1 is -1',
  );
});

test('limits that make no sense are refused', async () => {
  assert.match(await refusal('a.jsonl', '[1,2]', { ...NONE, length: 1 }), 'option length: it is 1, expected 2 or more');
  assert.match(
    await refusal('a.jsonl', '[1,2]', { ...NONE, maxTokens: 0.5 }),
    'option max-tokens: it is 0.5, expected 2 or more',
  );
});

test('a file that is no tokenizer is refused in one line', async () => {
  await inWorkspace(async (folder) => {
    for (const content of ['{', '[]', '{"model":{"type":"Nonsense"}}', '{}']) {
      writeFileSync(join(folder, 'tokenizer.json'), content);
      let message = '';
      try {
        await codecFor(join(folder, 'model.onnx'), 256);
      } catch (error) {
        message = (error as Error).message;
      }
      assert.match(message, /^OF_TOKENIZER .*it is no usable tokenizer: [^\n]+$/);
    }
  });
});

/** A tokenizer.json as Llama's: pairs that merge, bytes for what has no token, and a first token before every text. */
function tokenizerJson(): object {
  const tokens = [
    '<unk>',
    '<s>',
    ...Array.from({ length: 256 }, (_, byte) => byteToken(byte)),
    ...'▁abceht',
    'he',
    'the',
    '▁the',
  ];
  const first = { SpecialToken: { id: '<s>', type_id: 0 } };
  return {
    added_tokens: [0, 1].map((id) => ({ id, content: tokens[id], special: true, normalized: false })),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [first, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: [
        ['h', 'e'],
        ['t', 'he'],
        ['▁', 'the'],
      ],
    },
  };
}

function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
}

test('the tokenizer beside a model turns text into the ids that it stands for, and back', () =>
  inWorkspace(async (folder) => {
    writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizerJson()));
    const codec = await codecFor(join(folder, 'model.onnx'), 256);
    // <s> is 1, the bytes begin at 2, then come the letters in their order, from 258 on.
    const ids = [1, 267, 258, 261, 259, 264, 258, 2 + 0xc3, 2 + 0xa9];
    assert.equal(await codec?.encode('the cat é'), ids);
    assert.is(await codec?.decode(ids), 'the cat é');
    const path = join(folder, 'text.jsonl');
    writeFileSync(path, `${JSON.stringify({ text: 'the cat é' })}\n`);
    assert.equal((await loadTokenData(path, { vocabulary: 268, codec })).sequences, [ids]);
  }));

test('without a tokenizer beside it a model of 256 tokens takes bytes, and no other does', async () => {
  await inWorkspace(async (folder) => {
    assert.is(await codecFor(join(folder, 'model.onnx'), 256), BYTES);
    assert.is(await codecFor(join(folder, 'model.onnx'), 512), null);
  });
  assert.is(await BYTES.decode(await BYTES.encode('größer')), 'größer');
});

test('rows without columns are none, however many there are', async () => {
  const began = performance.now();
  const none = new Uint8Array(0);
  assert.match(await refusal('a.npy', npy('<i8', '1000000000000000, 0', none)), 'no sequence of two or more tokens');
  assert.match(await refusal('a.npy', npy('<i8', '-1, 4', none)), 'its header does not tell type and shape');
  assert.match(await refusal('a.npy', npy('constructor', '2,', none)), "its elements are 'constructor'");
  assert.ok(performance.now() - began < 5000);
});

test('a line without an end is refused before it fills memory', async () => {
  const line = Buffer.alloc(17 * 2 ** 20, 32);
  assert.match(await refusal('a.jsonl', Buffer.concat([Buffer.from('[1,2]\n'), line])), 'a.jsonl:2: it is longer than');
});

test('of a long text as much is read as can matter', async () => {
  const text = Buffer.from('é'.repeat(50_000));
  const { sequences, cut, source } = await loaded('a.txt', text, { vocabulary: 256, codec: BYTES, maxTokens: 100 });
  assert.equal([sequences.length, sequences[0]?.length, cut], [1, 100, true]);
  assert.match(source, /^the first 100 tokens/);
  // A tokenizer gets a piece that ends between characters.
  let asked = '';
  const encode = async (piece: string): Promise<number[]> => {
    asked = piece;
    return [1, 2, 3];
  };
  const codec = { ...BYTES, name: 'by hand', encode };
  const found = await loaded('a.txt', text, { vocabulary: 256, codec, maxTokens: 2 + 499 });
  assert.is(asked, 'é'.repeat((502 * 64) / 2));
  assert.ok(found.cut);
});

/** A tokenizer whose words are what `pattern` finds. */
function splitting(pattern: string): object {
  return {
    version: '1.0',
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false },
    post_processor: null,
    decoder: null,
    model: { type: 'BPE', unk_token: 'a', vocab: { a: 0, b: 1 }, merges: [] },
  };
}

test('a tokenizer that does not end is ended, and the process goes on', () =>
  inWorkspace(async (folder) => {
    const path = join(folder, 'tokenizer.json');
    writeFileSync(path, JSON.stringify(splitting('(a+)+$')));
    const codec = await codecFor(join(folder, 'model.onnx'), null);
    assert.equal(await codec?.encode('aa'), [0, 0]);
    const began = process.cpuUsage();
    let message = '';
    await codec?.encode(`${'a'.repeat(60)}b`).catch((error: Error) => {
      message = error.message;
    });
    assert.match(message, /^OF_TOKENIZER .*given up after \d s of computing/);
    const { user, system } = process.cpuUsage(began);
    assert.ok((user + system) / 1e6 < 8, `${(user + system) / 1e6} s`);
    // What was given up stays so, in one line and at once.
    await codec?.encode('aa').catch((error: Error) => {
      message = error.message;
    });
    assert.match(message, /^OF_TOKENIZER .*its thread has ended/);
  }));

test.run();
