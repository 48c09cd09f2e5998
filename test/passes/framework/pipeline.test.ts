/** Options and pipelines are data; their text says all of it: `parse(print(value))` is the value. */
import * as fc from 'fast-check';
import * as assert from 'uvu/assert';
import {
  choiceOption,
  flagOption,
  fuseSteps,
  integerOption,
  layersOption,
  type OptionSpec,
  parsePipeline,
  parseRuns,
  pathOption,
  printPipeline,
  printRuns,
  registry,
  runsOption,
  type Step,
  step,
} from '../../../passes/index.js';
import { removeAttention } from '../../../passes/transforms/remove-attention.js';
import { suite } from '../../helpers/suite.js';

const test = suite('pipelines as data');

/** Layers in their one form, dense enough that ranges and gaps both occur. */
const layers = fc.uniqueArray(fc.nat(40), { maxLength: 20 }).map((list) => list.sort((a, b) => a - b));
/** Runs of two layers or more, in any order, no layer in two of them. */
const runs = fc.array(fc.tuple(fc.nat(40), fc.nat(5)), { maxLength: 20 }).map((pairs) => {
  const groups: number[][] = [[], [], [], [], [], []];
  for (const [layer, group] of new Map(pairs)) groups[group]?.push(layer);
  return groups.filter((group) => group.length > 1).map((group) => group.sort((a, b) => a - b));
});
/** Paths with whatever a person may put into one, blanks, braces, commas and quotes included. */
const paths = fc
  .oneof(fc.string({ unit: 'binary' }), fc.string({ unit: fc.constantFrom(...' ,{}\'"%=20\t\n\u00a0\u2028é/') }))
  .filter((path) => !path.includes('\0'));
const CHOICES = ['own', 'last', 'two-stage'] as const;

/** Every kind of option, with values that it takes. */
const KINDS: readonly (readonly [string, OptionSpec<never>, fc.Arbitrary<unknown>])[] = [
  ['integer', integerOption('', 3, 2), fc.integer({ min: 2, max: Number.MAX_SAFE_INTEGER })],
  ['flag', flagOption(''), fc.boolean()],
  ['choice', choiceOption('', CHOICES, 'own'), fc.constantFrom(...CHOICES)],
  ['layers', layersOption(''), layers],
  ['runs', runsOption(''), runs],
] as unknown as readonly (readonly [string, OptionSpec<never>, fc.Arbitrary<unknown>])[];

for (const [name, spec, values] of KINDS) {
  const { parse, print, check } = spec as unknown as OptionSpec<unknown>;
  test(`what an option of kind ${name} prints is read as the same value, and as a value is itself`, () =>
    fc.assert(
      fc.property(values, (value) => {
        const text = print(value);
        assert.not(/[\s{}]/.test(text), `'${text}' cannot be written in a pipeline`);
        assert.equal(parse(text), value);
        assert.equal(check?.(value), value);
      }),
    ));
  test(`an option of kind ${name} takes no text and no value of another kind`, () => {
    for (const bad of ['', ' ', 'x', '-1', '1.5', '3-', '5-4', '1,,2', '1e9', '99999999999999999999', 'own ']) {
      assert.throws(() => parse(bad), /^(expected|layer|the range|a run)/, `${name}: '${bad}'`);
    }
    for (const bad of [null, undefined, Number.NaN, 1.5, -1, {}, [null], [-1], ['3'], [[1]], [1e9]]) {
      assert.throws(() => check?.(bad), /^(expected|layer|a run)/, `${name}: ${JSON.stringify(bad)}`);
    }
  });
}

test('a path is read as it was printed, whatever is in it, and never ends a word or a pass', () => {
  const { parse, print, check } = pathOption('');
  fc.assert(
    fc.property(paths, (path) => {
      const text = print(path);
      assert.not(/[\s{}]/.test(text), `'${text}' cannot be written in a pipeline`);
      assert.is(parse(text), path);
      assert.is(check?.(path), path);
    }),
  );
  assert.is(print('my maps/50%,{a}.onnx-fuse-fit'), 'my%20maps/50%25,%7Ba%7D.onnx-fuse-fit');
  for (const bad of ['100%', '%zz', '%ff']) assert.throws(() => parse(bad), /^expected a path with % written as %25/);
  for (const bad of [null, 3, ['a'], 'a\0b']) assert.throws(() => check?.(bad), /^expected a path/);
});

test('a run may leap a gap in the numbers of layers, and is one run', () => {
  assert.is(
    printRuns([
      [2, 3, 5, 6],
      [8, 9],
      [11, 13],
    ]),
    '2-3+5-6,8-9,11+13',
  );
  assert.equal(parseRuns('2-3+5-6,8-9,11+13'), [
    [2, 3, 5, 6],
    [8, 9],
    [11, 13],
  ]);
  assert.equal(parseRuns(' 2 + 3, 8-9'), [
    [2, 3],
    [8, 9],
  ]);
  assert.throws(() => parseRuns('2-3+3-5,5-6'), /layer 5 is in two runs/);
  assert.throws(() => parseRuns('2-4,7'), /a run needs two layers at least, found '7'/);
  assert.throws(() => parseRuns('2-3+'), /expected layer numbers like .*'2-3\+'/);
});

/** Values for every option of our own passes. */
function valuesOf(spec: OptionSpec<unknown>): fc.Arbitrary<unknown> {
  const { fallback } = spec;
  if (typeof fallback === 'boolean') return fc.boolean();
  if (typeof fallback === 'number') return fc.integer({ min: 2, max: 1000 });
  if (fallback === '') return paths;
  if (Array.isArray(fallback)) return fc.oneof(layers, runs).filter((value) => isTaken(spec, value));
  const choices = /\(([^()]*)\)$/.exec(spec.help)?.[1]?.split(', ') ?? [];
  assert.ok(choices.length > 1, `'${spec.help}' names no choices`);
  return fc.constantFrom(...choices);
}

function isTaken(spec: OptionSpec<unknown>, value: unknown): boolean {
  try {
    spec.check?.(value);
    return true;
  } catch {
    return false;
  }
}

const anyStep: fc.Arbitrary<Step> = fc.constantFrom(...registry.values()).chain((pass) => {
  const specs = Object.entries(pass.options as unknown as Readonly<Record<string, OptionSpec<unknown>>>);
  const model = Object.fromEntries(specs.map(([name, spec]) => [name, valuesOf(spec)]));
  return fc.record(model, { requiredKeys: [] }).map((options) => step(pass, options as never));
});

test('a pipeline of any passes with any options prints as text that is the same pipeline', () =>
  fc.assert(
    fc.property(fc.array(anyStep, { maxLength: 6 }), (steps) => {
      const text = printPipeline(steps);
      const again = parsePipeline(text, registry);
      assert.equal(again, steps);
      assert.is(printPipeline(again), text);
    }),
    { numRuns: 500 },
  ));

test('so do the pipelines that options make', () =>
  fc.assert(
    fc.property(
      fc.record(
        {
          removeAttention: layers,
          removeFfn: layers,
          runs,
          parallelizeBlocks: runs,
          keepLast: fc.nat(5),
          maxWidth: fc.nat(5000),
          lead: fc.boolean(),
          norm: fc.constantFrom('fold' as const, 'last' as const),
          blockForm: fc.constantFrom('two-stage' as const, 'literal' as const),
          kvCaches: fc.constantFrom('merged' as const, 'separate' as const),
          kvNaming: fc.constantFrom('preserve' as const, 'compact' as const),
          requantize: fc.boolean(),
          fuse: fc.boolean(),
        },
        { requiredKeys: [] },
      ),
      (options) => {
        const steps = fuseSteps(options);
        assert.equal(parsePipeline(printPipeline(steps), registry), steps);
        const removed = steps.find(({ pass }) => pass.id === 'remove-attention')?.options['layers'] ?? [];
        assert.equal(removed, options.removeAttention ?? []);
      },
    ),
  ));

test('a step made from data is checked like one made from text', () => {
  assert.equal(step(removeAttention, { layers: [5, 3, 5] }).options, { layers: [3, 5] });
  assert.equal(step(removeAttention, { layers: undefined }).options, {});
  assert.throws(
    () => step(removeAttention, { layers: '3-5' as unknown as number[] }),
    /OF_USAGE pass remove-attention, option 'layers': expected a list of layer numbers, found '3-5'/,
  );
  assert.throws(
    () => step(removeAttention, { layer: [3] } as never),
    /OF_USAGE pass remove-attention: it has no option/,
  );
});

test.run();
