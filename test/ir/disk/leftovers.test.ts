/** Folders that look like what an interrupted run leaves: a stranger may have made them, so they are believed nothing. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { isOutputName } from '../../../ir/disk/output-names.js';
import { temporaryFor } from '../../../ir/index.js';
import { skip, suite } from '../../helpers/suite.js';
import { inWorkspace } from '../../helpers/workspace.js';

const test = suite('ir/disk leftovers');

/** A process id beyond every system's limit is dead. */
const OWNER = '.onnx-fuse-owner-2000000000';

/** The folder of a run that died while its files went into place, as far as its names say. */
function plant(folder: string, files: Readonly<Record<string, string>>): string {
  const commit = join(folder, '.out.onnx.onnx-fuse-commit');
  mkdirSync(commit);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(commit, name), text);
  return commit;
}

function refused(target: string, why: RegExp): void {
  assert.throws(
    () => temporaryFor(target),
    (error: Error) => /^OF_LEFTOVER /.test(error.message) && why.test(error.message),
  );
}

test('a planted list of files is not followed out of the folder', () =>
  inWorkspace((parent) => {
    for (const [i, names] of [
      ['../victim', 'out.onnx'],
      ['../../victim', 'out.onnx'],
      ['out.onnx', '../victim'],
      ['/etc/victim', 'out.onnx'],
      ['notes.txt', 'out.onnx'],
      ['out.onnx.data/../../victim', 'out.onnx'],
      [7, 'out.onnx'],
      [],
      'out.onnx',
    ].entries()) {
      const folder = join(parent, `in${i}`);
      mkdirSync(folder);
      writeFileSync(join(parent, 'victim'), 'mine');
      writeFileSync(join(folder, 'notes.txt'), 'mine too');
      plant(folder, {
        [OWNER]: JSON.stringify(names),
        'out.onnx': 'planted',
        victim: 'planted',
        'notes.txt': 'planted',
      });
      refused(join(folder, 'out.onnx'), /its list/);
      assert.is(readFileSync(join(parent, 'victim'), 'utf8'), 'mine');
      assert.is(readFileSync(join(folder, 'notes.txt'), 'utf8'), 'mine too');
      assert.equal(readdirSync(folder).sort(), ['.out.onnx.onnx-fuse-commit', 'notes.txt']);
    }
  }));

test('what only looks like such a folder is neither read nor moved', () =>
  inWorkspace((parent) => {
    const elsewhere = join(parent, 'elsewhere');
    mkdirSync(elsewhere);
    writeFileSync(join(elsewhere, 'out.onnx'), 'mine');
    writeFileSync(join(elsewhere, OWNER), '["out.onnx"]');
    const linked = join(parent, 'linked');
    mkdirSync(linked);
    symlinkSync(elsewhere, join(linked, '.out.onnx.onnx-fuse-commit'));
    refused(join(linked, 'out.onnx'), /it is no folder/);
    assert.equal(readdirSync(elsewhere).sort(), [OWNER, 'out.onnx']);

    const inside = join(parent, 'inside');
    mkdirSync(inside);
    symlinkSync(join(elsewhere, 'out.onnx'), join(plant(inside, { [OWNER]: '["out.onnx"]' }), 'out.onnx'));
    refused(join(inside, 'out.onnx'), /'out\.onnx' in it is a link/);
    assert.not(existsSync(join(inside, 'out.onnx')));

    const unnamed = join(parent, 'unnamed');
    mkdirSync(unnamed);
    plant(unnamed, { '.onnx-fuse-owner-1e9': '["out.onnx"]', 'out.onnx': 'planted' });
    refused(join(unnamed, 'out.onnx'), /names no process/);
  }));

test('a list that is a pipe is refused, not waited for', () =>
  inWorkspace((folder) => {
    const commit = plant(folder, { 'out.onnx': 'planted' });
    if (spawnSync('mkfifo', [join(commit, OWNER)]).status !== 0) skip('mkfifo makes no pipes here');
    refused(join(folder, 'out.onnx'), /its list is none that a run writes/);
  }));

test('a run writes its model and its data, under the names of either style, and nothing else', () => {
  for (const name of ['m.onnx', 'm.onnx.data', 'm.onnx.data.12', 'm.onnx_data', 'm.onnx_data_3']) {
    assert.ok(isOutputName('m.onnx', name), name);
  }
  for (const name of [
    '',
    'n.onnx',
    'm.onnx.bak',
    'm.onnx.data.x',
    'm.onnx.data/../x',
    '../m.onnx',
    'm.onnx.data.1.exe',
  ]) {
    assert.not(isOutputName('m.onnx', name), name);
  }
  for (const base of ['..', '.', 'a/b', 'a\\b']) assert.not(isOutputName(base, base), base);
});

test.run();
