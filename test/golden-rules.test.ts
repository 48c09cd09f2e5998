/** The golden runner itself: that it notices what it must notice. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { registry } from '../passes/index.js';
import { ACCEPT_COMMAND, GOLDEN_ROOT, parseGolden, readGoldenTree } from './helpers/golden.js';
import { checkGolden } from './helpers/golden-check.js';
import { suite } from './helpers/suite.js';

const test = suite('golden rules');

const PASSES = [...registry.keys()];
const FILE = join(GOLDEN_ROOT, 'concat-ffn', 'relu.golden');
const text = readFileSync(FILE, 'utf8');

/** The text with one thing changed; fails when that thing is not there. */
function changed(from: string | RegExp, to: string): string {
  const result = text.replace(from, to);
  assert.is.not(result, text, `${from} is not in the golden file`);
  return result;
}

function problemOf(text: string): string {
  try {
    parseGolden(text, FILE);
    return 'none';
  } catch (error) {
    return (error as Error).message;
  }
}

test('a file with a malformed head or sections is refused with the reason', () => {
  assert.is(problemOf(text), 'none');
  assert.match(
    problemOf(changed(/^== remarks\n.*\n/m, '')),
    'expected the sections input,remarks,output, found input,output',
  );
  assert.match(problemOf(changed(/^== output\n[\s\S]*/m, '== output\n')), "section 'output' is empty");
  assert.match(problemOf(changed(/^passed.*\n/m, '')), "section 'remarks' is empty");
  assert.match(problemOf(`${text}== output\nunchanged\n`), "section 'output' is there twice");
  assert.match(problemOf(changed(/^#.*\n/gm, '')), 'must begin with #');
  assert.match(problemOf(changed('tolerance: 1e-6', 'tolerance: 0.5')), "expected 'tolerance:'");
  assert.match(problemOf(changed(/^tolerance.*\n/m, '')), "expected 'tolerance:'");
  assert.match(problemOf(changed(/^counts.*\n/m, '')), 'needs');
  assert.match(problemOf(changed('tolerance: ', 'repeat: no\ntolerance: ')), "expected 'repeat: no, <reason>'");
  assert.match(problemOf(changed('tolerance: ', 'runs: no\ntolerance: ')), "expected 'runs: as its fp32 twin, because");
  assert.match(problemOf(changed('tolerance: ', 'speed: 3\ntolerance: ')), "found 'speed: 3'");
});

test('the line ends that Git gives to a file on Windows change nothing', () => {
  assert.not(text.includes('\r'));
  assert.equal(parseGolden(text.replaceAll('\n', '\r\n'), FILE), parseGolden(text, FILE));
});

const broken: [what: string, text: string, complaint: RegExp][] = [
  ['stale output', changed(/^( {2}mid_0 = )Relu(?![\s\S]*^== remarks)/m, '$1Tanh'), /\n-.*Tanh[\s\S]*\n\+.*Relu/],
  ['stale remarks', changed('passed concat-ffn 0', 'missed concat-ffn 0'), /\n-missed[\s\S]*\n\+passed/],
  ['input that is not as printed', changed('  up_0 = MatMul (', '  up_0  =  MatMul('), /input differs/],
  ['a pipeline in odd spelling', changed('pipeline: concat-ffn', 'pipeline:  concat-ffn{}'), /canonical/],
  ['wrong counts', changed('MatMul 5 -> 3', 'MatMul 5 -> 2'), /counts/],
  ['results that are not bit-identical', changed('tolerance: 1e-6', 'tolerance: exact'), /bit for bit/],
  ['results beyond the tolerance', changed('tolerance: 1e-6', 'tolerance: 1e-12'), /differs by/],
  ['a changed function that is the same', changed('tolerance: 1e-6', 'tolerance: changes-function'), /the same/],
  ['an error that does not come', changed('== output', '== error'), /expected to refuse/],
];
for (const [what, text, complaint] of broken) {
  test(`${what} fails`, async () => {
    const error = await checkGolden(parseGolden(text, FILE), false).then(
      () => new Error('no failure'),
      (error: Error & { details?: string }) => error,
    );
    assert.match(`${error.message}\n${'details' in error ? error.details : ''}`, complaint);
    if (/stale|input/.test(what)) assert.ok(error.message.includes(ACCEPT_COMMAND), 'no word about accepting');
  });
}

test('bfloat16 runs as its fp32 twin, says so, and nothing else does', async () => {
  const line = 'runs: as its fp32 twin, because there are no kernels\n';
  const complaint = async (text: string): Promise<string> =>
    checkGolden(parseGolden(text, FILE), false).then(
      () => 'none',
      (error: Error) => error.message,
    );
  assert.match(await complaint(changed('== input', `${line}== input`)), /a model of bfloat16, and no other/);
  const bfloat16 = readFileSync(join(GOLDEN_ROOT, 'pipeline', 'bfloat16.golden'), 'utf8');
  assert.is(await complaint(bfloat16), 'none');
  assert.match(await complaint(bfloat16.replace(/^runs: .*\n/m, '')), /a model of bfloat16, and no other/);
  // A weight that nothing computes with in bfloat16 does not keep onnxruntime from running the model.
  const runs = changed('== input', `${line}== input`)
    .replaceAll(/^(tiny .* <)$/gm, '$1\n  bfloat16[1] unused = {16256},')
    .replace('== input', 'repeat: no, it does not matter here\n== input');
  assert.match(await complaint(runs), /its twin is not needed/);
});

const inCopy = (body: (root: string) => void | Promise<void>) => async () => {
  const root = mkdtempSync(join(tmpdir(), 'golden-'));
  try {
    cpSync(GOLDEN_ROOT, root, { recursive: true, dereference: true, filter: (path) => !path.endsWith('.onnx') });
    await body(root);
  } finally {
    rmSync(root, { recursive: true });
  }
};

test(
  'accepting fills in input, remarks and output and nothing else',
  inCopy(async (root) => {
    const file = join(root, 'concat-ffn', 'relu.golden');
    const loose = changed(/^== remarks\n[\s\S]*/m, '== remarks\n?\n== output\n?\n').replace(
      '  up_0 = MatMul (',
      'up_0=MatMul(',
    );
    await checkGolden(parseGolden(loose, file), true);
    assert.is(readFileSync(file, 'utf8'), text);
  }),
);

test(
  'orphans and gaps in the folder are problems',
  inCopy((root) => {
    assert.is(readGoldenTree(root, PASSES).problems.join('\n'), '');
    mkdirSync(join(root, 'no-such-pass'));
    writeFileSync(join(root, 'notes.txt'), '');
    writeFileSync(join(root, 'concat-ffn', 'relu.golden.orig'), text);
    writeFileSync(join(root, 'cli', 'old-help.txt'), '');
    rmSync(join(root, 'drop-dead', 'nothing-dead.golden'));
    rmSync(join(root, 'pipeline'), { recursive: true });
    assert.equal(readGoldenTree(root, [...PASSES, 'new-pass']).problems, [
      'no-such-pass: no pass is called so',
      'notes.txt: only README.md and folders belong here',
      'concat-ffn/relu.golden.orig: expected <case>.golden, in lower case with hyphens',
      'drop-dead: has no case in which nothing changes',
      'new-pass: has no golden file',
      'pipeline: has no golden file',
      'cli/old-help.txt: does not belong here',
    ]);
  }),
);

test('an empty folder is a problem for every pass', () => {
  const { goldens, problems } = readGoldenTree(join(GOLDEN_ROOT, 'no-such-folder'), PASSES);
  assert.is(goldens.length, 0);
  assert.is(problems.length, PASSES.length + 1);
});

test.run();
