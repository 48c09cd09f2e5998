/** What was asked for a layer by number and cannot be done: one line and exit 1, or, asked to keep going, a note. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { openModel, saveModel } from '../../ir/index.js';
import { layersOf } from '../../passes/index.js';
import { type NasBlock, nasDecoder } from '../helpers/nas-decoder.js';
import { suite } from '../helpers/suite.js';
import { inWorkspace, runCli } from '../helpers/workspace.js';

const going = suite('keep going');

const WHOLE: NasBlock = { attention: 'attention', ffn: 'ffn' };
const BLOCKS: readonly NasBlock[] = [
  WHOLE,
  { attention: 'attention', ffn: 'none' },
  { attention: 'none', ffn: 'ffn' },
  { attention: 'linear', ffn: 'ffn' },
  WHOLE,
];

/** Runs on a decoder of `BLOCKS` in a folder of its own. */
async function withDecoder(
  work: (
    run: (...flags: string[]) => Promise<{ code: number; stdout: string; stderr: string }>,
    folder: string,
  ) => unknown,
): Promise<void> {
  await inWorkspace(async (folder) => {
    const input = join(folder, 'in.onnx');
    await saveModel(nasDecoder(BLOCKS, 'torch'), input, {});
    await work((...flags) => runCli(input, join(folder, 'out.onnx'), '--no-verify', ...flags), folder);
  });
}

going('a layer that was named is not passed over: one line that names it, exit 1, and nothing is written', () =>
  withDecoder(async (run, folder) => {
    const asked: [string[], RegExp][] = [
      [['--remove-attention', '0,2'], /OF_CANNOT_REMOVE layer 2: its attention cannot be removed: it has none; /],
      [['--remove-attention', '2-3'], /layer 2: .*; nor can that of layer 3; .*--keep-going/],
      [['--remove-attention', '3'], /layer 3: .*a linear stands in its place/],
      [['--remove-ffn', '1'], /OF_CANNOT_REMOVE layer 1: its FFN cannot be removed: it has none/],
      [['--runs', '3-4'], /OF_CANNOT_FUSE layer 4: .*attention/],
      [['--parallelize-blocks', '0-1'], /OF_CANNOT_FUSE layer \d: /],
    ];
    for (const [flags, why] of asked) {
      const { code, stdout, stderr } = await run(...flags);
      assert.is(code, 1, flags.join(' '));
      assert.is(stdout, '');
      assert.match(stderr, why);
      assert.is(stderr.trimEnd().split('\n').length, 1, stderr);
      assert.not(existsSync(join(folder, 'out.onnx')));
    }
    const unknown = await run('--remove-ffn', '7');
    assert.is(unknown.code, 2);
    assert.match(unknown.stderr, /OF_NO_SUCH_LAYER layer 7: .*it has 0 to 4/);
  }),
);

going('with --keep-going the rest is done, and each layer that is left is said with the reason', () =>
  withDecoder(async (run, folder) => {
    const flags = ['--remove-attention', '0,2-3', '--remove-ffn', '1,4', '--runs', '3-4', '--keep-going'];
    const { code, stdout } = await run(...flags, '--report', join(folder, 'report.json'));
    assert.is(code, 0);
    for (const line of [
      /^attention removed from layer 0$/m,
      /^FFN removed from layer 4$/m,
      /^ {2}layer 2: its attention cannot be removed: it has none$/m,
      /^ {2}layer 3: its attention cannot be removed: a linear stands in its place$/m,
      /^ {2}layer 1: its FFN cannot be removed: it has none$/m,
      /^ {2}layer 3-4: layer 4: it cannot be in a run: it has no FFN/m,
    ]) {
      assert.match(stdout, line);
    }
    const kinds = layersOf(openModel(join(folder, 'out.onnx'))).layers.map(({ index, attention, ffn }) =>
      [index, attention ? 'attention' : '', ffn ? 'ffn' : ''].join(' '),
    );
    assert.equal(kinds, ['0  ffn', '1 attention ', '2  ffn', '3  ffn', '4 attention ']);
    // Also where nothing at all can be done, and the output is a copy.
    const nothing = await run('--remove-attention', '2', '--keep-going', '--keep-last', '9');
    assert.is(nothing.code, 0);
    assert.match(nothing.stdout, /copy of the input[\s\S]*left undone:\n {2}layer 2: its attention cannot be removed/);
  }),
);

going('the block_configs of an export that was pruned already may name what is gone, and it is said', () =>
  withDecoder(async (run, folder) => {
    const [none, some] = [{ no_op: true }, { no_op: false }];
    const config = join(folder, 'config.json');
    const write = (attention: readonly number[]): void => {
      const block_configs = BLOCKS.map((_, i) => ({ attention: attention.includes(i) ? none : some, ffn: some }));
      writeFileSync(config, JSON.stringify({ block_configs }));
    };
    write([2, 4]);
    const { code, stdout } = await run('--remove-attention', config);
    assert.is(code, 0);
    assert.match(stdout, /^attention removed from layer 4$/m);
    assert.match(stdout, /^ {2}layer 2: its attention is not removed: it has none$/m);
    // A linear is there although the list says that nothing is: that is no pruned export of this list.
    write([3]);
    assert.is((await run('--remove-attention', config)).code, 1);
    // The same numbers, written by hand, are meant.
    assert.is((await run('--remove-attention', '2,4')).code, 1);
  }),
);

going.run();
