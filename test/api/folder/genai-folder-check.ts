/**
 * A folder of onnxruntime-genai that loses attentions: afterwards KV inputs, outputs and configs agree with each other, the
 * model loads in onnxruntime, and the algebra check passes.
 */
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Report } from '../../../api/fuse/report.js';
import type { Inspection } from '../../../api/index.js';
import { openModel } from '../../../ir/index.js';
import { concatFfn, factsOf } from '../../../passes/index.js';
import { withSession } from '../../../runtime/index.js';
import { inWorkspace, runCli } from '../../helpers/workspace.js';

interface Decoder {
  readonly num_hidden_layers: number;
  readonly inputs: Readonly<Record<string, string>>;
  readonly outputs: Readonly<Record<string, string>>;
  readonly sliding_window?: { readonly layers?: readonly number[] };
}

export function decoderOf(folder: string): Decoder {
  return JSON.parse(readFileSync(join(folder, 'genai_config.json'), 'utf8')).model.decoder;
}

/** Every path of keys in a JSON value. */
function keysOf(value: unknown, path = ''): string[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [path];
  return Object.entries(value).flatMap(([key, inner]) => keysOf(inner, `${path}.${key}`));
}

/** The numbers for which a template of names gives a name in `names`, counted as genai does. */
function numbersIn(names: readonly string[], template: string): number[] {
  const [prefix = '', suffix = ''] = template.split('%d');
  return names
    .filter((name) => name.startsWith(prefix) && name.endsWith(suffix) && name.length > prefix.length + suffix.length)
    .map((name) => Number(name.slice(prefix.length, name.length - suffix.length)))
    .sort((a, b) => a - b);
}

/** The numbers of the caches of a folder's model; all four templates of the config give the same. */
function cacheNumbers(folder: string): number[] {
  const { inputs, outputs } = decoderOf(folder);
  const { graph } = openModel(join(folder, 'model.onnx'));
  const [ins, outs] = [graph.inputs.map(({ name }) => name), graph.outputs.map(({ name }) => name)];
  const keys = numbersIn(ins, inputs['past_key_names'] ?? '');
  assert.equal(numbersIn(ins, inputs['past_value_names'] ?? ''), keys);
  assert.equal(numbersIn(outs, outputs['present_key_names'] ?? ''), keys);
  assert.equal(numbersIn(outs, outputs['present_value_names'] ?? ''), keys);
  return keys;
}

/** Layers to take the attention of: layer 0, whose key tells the past length in some exports, and a gap further on; none where none can go. */
export async function layersToRemove(input: string): Promise<number[]> {
  const { stdout } = await runCli('inspect', join(input, 'model.onnx'), '--json');
  const { layers } = JSON.parse(stdout) as Inspection;
  const removable = layers.filter(({ attention }) => attention.removable).map(({ index }) => index);
  const chosen = removable.filter((index) => index !== 1 && index !== removable.at(-1));
  return removable.length > 2 ? chosen : removable.slice(0, 1);
}

/** Takes the attention of `removed` layers from a folder and checks what comes out; true where FFNs were fused as well. */
export function checkFolder(
  input: string,
  removed: readonly number[],
  naming: 'preserve' | 'compact',
): Promise<boolean> {
  return inWorkspace(async (workspace) => {
    const [output, reportFile] = [join(workspace, 'out'), join(workspace, 'report.json')];
    const options = ['--kv-naming', naming, '--keep-last', '0', '--report', reportFile, '--quiet'];
    const { code, stderr } = await runCli(input, output, '--remove-attention', removed.join(), ...options);
    assert.is(code, 0, stderr);
    const report = JSON.parse(readFileSync(reportFile, 'utf8')) as Report;
    const { checks } = report;

    const before = cacheNumbers(input);
    const left = before.filter((number) => !removed.includes(number));
    const after = cacheNumbers(output);
    const decoder = decoderOf(output);
    if (naming === 'compact') {
      assert.equal(
        after,
        left.map((_, i) => i),
      );
      assert.is(decoder.num_hidden_layers, after.length);
    } else {
      assert.equal(after, left);
      assert.is(decoder.num_hidden_layers, decoderOf(input).num_hidden_layers);
    }
    const windows = decoderOf(input).sliding_window?.layers ?? [];
    const expected = windows.filter((layer) => left.includes(layer));
    assert.equal(
      decoder.sliding_window?.layers ?? [],
      naming === 'compact' ? expected.map((layer) => left.indexOf(layer)) : expected,
    );
    // genai throws on keys that it does not know.
    const known = new Set(keysOf(decoderOf(input)));
    for (const key of keysOf(decoder)) assert.ok(known.has(key), `${key} was added`);

    if (checks.algebra) assert.ok(checks.algebra.pass);
    else assert.match(checks.skipped ?? '', /does not run here/);
    const loads = (folder: string) => withSession(join(folder, 'model.onnx'), {}, async () => true).catch(() => false);
    if (await loads(input)) assert.ok(await loads(output), 'onnxruntime does not load it');
    return factsOf(report, concatFfn).length > 0;
  });
}

/** The model with combined caches (GPT-2: `past_N`) loses the attention of `removed` and is counted from 0 without being asked. */
export function checkCombinedCaches(model: string, layers: number, removed: readonly number[]): Promise<void> {
  return inWorkspace(async (workspace) => {
    const [input, output] = [join(workspace, 'in'), join(workspace, 'out')];
    cpSync(dirname(model), input, { recursive: true });
    const decoder = {
      filename: basename(model),
      num_hidden_layers: layers,
      inputs: { past_names: 'past_%d' },
      outputs: { present_names: 'present_%d' },
    };
    writeFileSync(join(input, 'genai_config.json'), JSON.stringify({ model: { type: 'gpt2', decoder } }));
    const { code, stderr } = await runCli(input, output, '--remove-attention', removed.join(), '--quiet');
    assert.is(code, 0, stderr);
    const { graph } = openModel(join(output, basename(model)));
    const names = [...graph.inputs, ...graph.outputs]
      .map(({ name }) => name)
      .filter((name) => /past|present/.test(name));
    const left = Array.from({ length: layers - removed.length }, (_, layer) => layer);
    assert.equal(names.sort(), [...left.map((layer) => `past_${layer}`), ...left.map((layer) => `present_${layer}`)]);
    assert.is(decoderOf(output).num_hidden_layers, left.length);
  });
}
