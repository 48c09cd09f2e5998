/** Which layers a decoder has: numbers and names, streams that something bypasses, branches that are no plain attention or FFN. */
import * as assert from 'uvu/assert';
import { inspectModel } from '../../../api/inspect/inspect.js';
import { Diagnostic, parseModel, type Value } from '../../../ir/index.js';
import {
  factsOf,
  type Layer,
  layersOf,
  type PipelineResult,
  parallelizeFfn,
  parsePipeline,
  registry,
  removeAttention,
  removeFfn,
  runPipeline,
} from '../../../passes/index.js';
import { nasDecoder } from '../../helpers/nas-decoder.js';
import { suite } from '../../helpers/suite.js';

const layers = suite('layers');

/** A decoder written branch by branch, hidden size 4. Every matrix has a name of its own, which says nothing. */
class Sketch {
  readonly #weights: string[] = [];
  readonly #inputs = ['int64[B,S] ids'];
  readonly #lines: string[] = [];
  /** The value that holds the stream. */
  stream = 'embedded';

  constructor() {
    this.#lines.push(`embedded = Gather (${this.weight(9, 4)}, ids)`);
  }

  weight(...dims: number[]): string {
    const name = `w${String.fromCharCode(97 + (this.#weights.length % 26))}${'x'.repeat(this.#weights.length / 26)}`;
    const values = Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => ((i * 7) % 5) / 8 - 0.25);
    this.#weights.push(`float[${dims}] ${name} = {${values.join(', ')}}`);
    return name;
  }

  input(declaration: string): string {
    this.#inputs.push(declaration);
    return declaration.split(' ').at(-1) as string;
  }

  /** A node called `scope/part`; gives its result. */
  op(scope: string, part: string, call: string, notes = ''): string {
    const result = `v${this.#lines.length}`;
    this.#lines.push(`["${scope && part ? `${scope}/${part}` : scope || part}"${notes}] ${result} = ${call}`);
    return result;
  }

  project(scope: string, part: string, from: string, columns = 4, rows = 4): string {
    return this.op(scope, part, `MatMul (${from}, ${this.weight(rows, columns)})`);
  }

  /** Attention of `queries` to keys and values; those of the stream where none are given. Gives the term and its keys. */
  attention(scope: string, memory?: readonly [string, string]): { term: string; memory: readonly [string, string] } {
    const q = this.project(scope, 'q', this.stream);
    const own = (): readonly [string, string] => [
      this.project(scope, 'k', this.stream),
      this.project(scope, 'v', this.stream),
    ];
    const [k, v] = memory ?? own();
    const turned = this.op(scope, 'T', `Transpose <perm: ints = [0, 2, 1]> (${k})`);
    const scores = this.op(scope, 'S', `MatMul (${q}, ${turned})`);
    const mixed = this.op(scope, 'M', `MatMul (${this.op(scope, 'P', `Softmax <axis: int = -1> (${scores})`)}, ${v})`);
    return { term: this.project(scope, 'o', mixed), memory: [k, v] };
  }

  ffn(scope: string, width = 6): string {
    const up = this.op(scope, 'relu', `Relu (${this.project(scope, 'up', this.stream, width)})`);
    return this.project(scope, 'down', up, 4, width);
  }

  /** Adds terms to the stream, one after another, and goes on from there. */
  sum(scope: string, ...terms: string[]): string {
    for (const [i, term] of terms.entries()) {
      this.stream = this.op(scope, `Add${i > 0 ? `_${i}` : ''}`, `Add (${this.stream}, ${term})`);
    }
    return this.stream;
  }

  text(): string {
    const head = `logits = MatMul (${this.stream}, ${this.weight(4, 9)})`;
    const declared = `g (${this.#inputs.join(', ')}) => (float[B,S,9] logits) <${this.#weights.join(', ')}>`;
    return `<ir_version: 8, opset_import: ["" : 17]> ${declared} {\n${[...this.#lines, head].join('\n')}\n}`;
  }
}

interface Row {
  readonly index: number;
  readonly branches: string;
}

/** Layer numbers with the roles of their branches in the order of the stream. */
function rowsOf(sketch: Sketch): Row[] {
  return layersOf(parseModel(sketch.text())).layers.map((layer) => ({ index: layer.index, branches: rolesOf(layer) }));
}

function rolesOf({ attention, ffn, linears, others }: Layer): string {
  const all = [attention, ffn, ...linears, ...others].filter((branch) => branch !== null);
  const role = (branch: (typeof all)[number]): string =>
    branch.role === 'other'
      ? (branch.recognised ?? 'other')
      : branch.role === 'linear'
        ? `linear:${branch.slot}`
        : branch.role;
  return all
    .sort((a, b) => a.stage.index - b.stage.index)
    .map(role)
    .join(' ');
}

const row = (index: number, branches: string): Row => ({ index, branches });

function run(sketch: Sketch, pipeline: string) {
  return runPipeline(parseModel(sketch.text()), parsePipeline(pipeline, registry));
}

/** The layers whose attention went. */
function gone(result: PipelineResult): number[] {
  return factsOf(result, removeAttention).map(({ layer }) => layer);
}

/** A decoder of whole blocks, whose scopes are told by `name`. */
function blocks(count: number, name: (layer: number) => string): Sketch {
  const sketch = new Sketch();
  for (let layer = 0; layer < count; layer++) {
    sketch.sum(name(layer), sketch.attention(`${name(layer)}/attn`).term);
    sketch.sum(name(layer), sketch.ffn(`${name(layer)}/mlp`));
  }
  return sketch;
}

layers('numbers of many spellings are read, also of words nobody thought of, and inner numbers are not', () => {
  const whole = (first: number) => [0, 1, 2].map((i) => row(first + i, 'attention ffn'));
  const spellings: [(layer: number) => string, number][] = [
    [(layer) => `/model/layers.${layer + 4}`, 4],
    [(layer) => `/transformer/h.${layer}`, 0],
    [(layer) => `/decoder/block.${layer}/layer.${layer === 1 ? 0 : 1}`, 0],
    [(layer) => `tf_model/encoder/layer_._${layer}`, 0],
    [(layer) => `/net/decoder_layers_${layer}`, 0],
    [(layer) => `/net/TransformerBlock_${layer + 1}`, 1],
    [(layer) => `/model/layer-${layer + 3}`, 3],
    [(layer) => `decoder-block-${layer + 2}-1`, 2],
    [(layer) => `net/layer${layer + 4}/part`, 4],
    [(layer) => `TransformerBlock${layer + 1}`, 1],
    [(layer) => `/model/layers.${layer + 5}/mlp.layer1`, 5],
    [(layer) => `/net/units.${layer}`, 0],
    [(layer) => `/0/model/layers.${layer + 2}/experts.${9 - layer}`, 2],
  ];
  for (const [name, first] of spellings) assert.equal(rowsOf(blocks(3, name)), whole(first), name(0));
});

layers('metadata of exporters tells the number where no name does', () => {
  let node = 0;
  const noted = blocks(2, () => '')
    .text()
    .replace(/^\[.*?\] v\d+ = /gm, (line) => {
      // Attention and FFN of a block are 13 nodes with their sums.
      const scope = `model.layers.${node++ < 13 ? 5 : 7}`;
      return `#@ metadata "pkg.torch.onnx.name_scopes" "['', 'model', '${scope}', '${scope}.mlp', 'node_${node}']"\n${line}`;
    });
  const { layers: found } = layersOf(parseModel(noted));
  assert.equal(
    found.map(({ index }) => index),
    [5, 7],
  );
});

layers('numbers that contradict the order of the graph are not believed, and that is said', () => {
  const order = [0, 2, 1];
  const swapped = blocks(3, (layer) => `/model/layers.${order[layer]}`);
  assert.equal(
    rowsOf(swapped).map(({ index }) => index),
    [0, 1, 2],
  );
  const { doubt } = inspectModel(parseModel(swapped.text()), 'swapped').model;
  assert.match(doubt ?? '', /the names say layer 1 where layer 2 is in the order of the graph/);
  const { remarks } = run(swapped, 'drop-dead');
  assert.match(remarks[0]?.message ?? '', /^layers are numbered by position: the names say/);
  const same = blocks(3, () => '/model/layers.0');
  assert.match(layersOf(parseModel(same.text())).doubt ?? '', /the names give layer 0 3 attentions one after another/);
  assert.is(rowsOf(same).length, 3);
});

layers('a branch without a number goes where its neighbours leave a place for it, and never to another number', () => {
  const sketch = new Sketch();
  sketch.sum('', sketch.attention('/layers.0/attn').term);
  sketch.sum('', sketch.ffn(''));
  sketch.sum('', sketch.attention('').term);
  sketch.sum('', sketch.ffn('/layers.1/mlp'));
  sketch.sum('', sketch.attention('/layers.2/attn').term);
  sketch.sum('', sketch.ffn('/layers.3/mlp'));
  sketch.sum('', sketch.ffn(''));
  assert.equal(rowsOf(sketch), [
    row(0, 'attention ffn'),
    row(1, 'attention ffn'),
    row(2, 'attention'),
    row(3, 'ffn'),
    row(4, 'ffn'),
  ]);
});

layers('attention and a state-space mixer on one sum are one layer with the FFN after them', () => {
  const hybrid = (scope: (layer: number) => string): Sketch => {
    const sketch = new Sketch();
    for (let layer = 0; layer < 2; layer++) {
      const { term } = sketch.attention(`${scope(layer)}/self_attn`);
      const inner = sketch.project(`${scope(layer)}/mamba`, 'in', sketch.stream);
      const scanned = sketch.op(`${scope(layer)}/mamba`, 'CumSum', `CumSum (${inner}, axis)`);
      sketch.sum(
        scope(layer),
        sketch.op(scope(layer), 'both', `Add (${term}, ${sketch.project(scope(layer), 'out', scanned)})`),
      );
      sketch.sum(scope(layer), sketch.ffn(`${scope(layer)}/mlp`));
    }
    return sketch;
  };
  for (const scope of [(layer: number) => `/model/layers.${layer}`, () => '']) {
    const sketch = hybrid(scope);
    const text = sketch.text().replace(' => (float', ', int64 axis => (float').replace(', int64 axis =>', ' =>');
    const model = parseModel(text.replace('int64[B,S] ids', 'int64[B,S] ids, int64 axis'));
    assert.equal(
      layersOf(model).layers.map((layer) => row(layer.index, rolesOf(layer).split(' ').sort().join(' '))),
      [row(0, 'attention ffn mixer'), row(1, 'attention ffn mixer')],
    );
    const done = runPipeline(model, parsePipeline('remove-attention{layers=1}', registry));
    assert.equal(
      factsOf(done, removeAttention).map(({ layer }) => layer),
      [1],
    );
    assert.ok(done.remarks.some(({ kind, layer }) => kind === 'passed' && layer === '1'));
  }
});

layers('self attention, cross attention and FFN are one layer, by names and by position', () => {
  for (const name of [(layer: number) => `/decoder/layers.${layer}`, () => '']) {
    const sketch = new Sketch();
    const states = sketch.input('float[B,T,4] states');
    for (let layer = 0; layer < 2; layer++) {
      sketch.sum(name(layer), sketch.attention(`${name(layer)}/self_attn`).term);
      const scope = `${name(layer)}/encoder_attn`;
      const memory = [sketch.project(scope, 'k', states), sketch.project(scope, 'v', states)] as const;
      sketch.sum(name(layer), sketch.attention(scope, memory).term);
      sketch.sum(name(layer), sketch.ffn(`${name(layer)}/mlp`));
    }
    const whole = 'attention cross attention ffn';
    assert.equal(rowsOf(sketch), [row(0, whole), row(1, whole)]);
    assert.equal(gone(run(sketch, 'remove-attention{layers=1}')), [1]);
    const done = run(sketch, 'remove-attention{layers=0-1},parallelize-ffn{keep-last=0}');
    assert.equal(factsOf(done, parallelizeFfn), [], 'the cross attention stands between');
    assert.ok(done.remarks.some(({ message }) => /cross attention/.test(message)));
  }
});

layers('all layers are found where a later one uses the keys of an earlier one, and the earlier one says which', () => {
  const sketch = new Sketch();
  const memories: (readonly [string, string])[] = [];
  for (let layer = 0; layer < 5; layer++) {
    const scope = `/model/layers.${layer}`;
    const { term, memory } = sketch.attention(`${scope}/self_attn`, layer === 4 ? memories[1] : undefined);
    memories.push(memory);
    sketch.sum(scope, term);
    sketch.sum(scope, sketch.ffn(`${scope}/mlp`));
  }
  assert.equal(
    rowsOf(sketch),
    [0, 1, 2, 3, 4].map((index) => row(index, 'attention ffn')),
  );
  const isRefused = (error: unknown): boolean =>
    error instanceof Diagnostic &&
    error.place === 'layer 1' &&
    /layer 4 uses its keys or values again/.test(error.text);
  assert.throws(() => run(sketch, 'remove-attention{layers=1}'), isRefused);
  assert.equal(gone(run(sketch, 'remove-attention{layers=2,4}')), [2, 4]);
  assert.equal(gone(run(sketch, 'remove-attention{layers=1,4}')), [1, 4], 'what needs the keys goes, too');
  const going = run(sketch, 'remove-attention{layers=1,3 keep-going=true}');
  assert.equal([gone(going), going.refused.map(({ layer }) => layer)], [[3], ['1']]);
  const parallel = run(sketch, 'remove-attention{layers=2-4},parallelize-ffn{keep-last=0}');
  assert.equal(
    factsOf(parallel, parallelizeFfn).map(({ layers: members }) => members),
    [['2', '3', '4']],
  );
});

layers(
  'the keys of an earlier layer are used again also through operators and sums that norm, and its caches stay its own',
  () => {
    const whole = { attention: 'attention', ffn: 'ffn' } as const;
    const model = nasDecoder([whole, whole, whole, whole], 'genai');
    const [, second, , last] = [...model.graph.nodes()].filter((node) => node.opType === 'GroupQueryAttention');
    for (const i of [1, 2]) {
      const own = last?.input(2 + i) as Value;
      last?.setInput(2 + i, second?.output(i) as Value);
      model.graph.removeInput(own);
    }
    const found = layersOf(model).layers;
    assert.equal(
      found.map((layer) => row(layer.index, rolesOf(layer))),
      [0, 1, 2, 3].map((index) => row(index, 'attention ffn')),
    );
    const attentions = found.map(({ attention }) => attention?.attention);
    assert.equal(
      attentions.map((attention) => attention?.kvInputs.map(({ name }) => name.replace(/\D+/g, '')).join('')),
      ['00', '11', '22', ''],
    );
    assert.match(attentions[1]?.blocked ?? '', /layer 3 uses its keys or values again .*'present\.1\.key'/);
    const done = runPipeline(model, parsePipeline('remove-attention{layers=1,3}', registry));
    assert.equal(gone(done), [1, 3]);
  },
);

layers('an embedding that every layer reads again hides no layer', () => {
  const sketch = new Sketch();
  for (let layer = 0; layer < 3; layer++) {
    const scope = `/layers.${layer}`;
    sketch.sum(scope, sketch.attention(`${scope}/attn`).term);
    sketch.sum(scope, sketch.ffn(`${scope}/mlp`));
    const gate = sketch.op(scope, 'Sigmoid', `Sigmoid (${sketch.project(scope, 'gate', sketch.stream)})`);
    const own = sketch.op(scope, 'Mul', `Mul (${gate}, ${sketch.project(scope, 'embedding', 'embedded')})`);
    sketch.sum(scope, sketch.project(scope, 'out', own));
  }
  const found = layersOf(parseModel(sketch.text())).layers;
  assert.equal(
    found.map((layer) => row(layer.index, rolesOf(layer))),
    [0, 1, 2].map((index) => row(index, 'attention ffn other')),
  );
  assert.equal(gone(run(sketch, 'remove-attention{layers=0-2}')), [0, 1, 2]);
});

layers('what is not recognised parts layers, and its own layers are named with the reason', () => {
  const sketch = new Sketch();
  sketch.sum('/layers.0', sketch.attention('/layers.0/attn').term);
  const early = sketch.ffn('/layers.0/mlp');
  sketch.sum('/layers.0', early);
  sketch.sum('/layers.1', sketch.attention('/layers.1/attn').term);
  // The FFN of layer 0 is added a second time: from here back to its sum nothing is a sum of branches.
  const again = sketch.op('/layers.1', 'again', `Add (${sketch.ffn('/layers.1/mlp')}, ${early})`);
  sketch.sum('/layers.1', again);
  sketch.sum('/layers.2', sketch.ffn('/layers.2/mlp', 8));
  const found = layersOf(parseModel(sketch.text())).layers;
  assert.equal(
    found.map((layer) => row(layer.index, rolesOf(layer))),
    [row(0, 'attention'), row(1, ''), row(2, 'ffn')],
  );
  assert.equal(
    found.map(({ unread }) => unread !== null),
    [true, true, false],
  );
  for (const layer of [0, 1]) {
    const isRefused = (error: unknown): boolean =>
      error instanceof Diagnostic &&
      error.place === `layer ${layer}` &&
      /it was not recognised: from /.test(error.text);
    assert.throws(() => run(sketch, `remove-ffn{layers=${layer}}`), isRefused);
  }
  assert.equal(factsOf(run(sketch, 'remove-ffn{layers=2}'), removeFfn), [{ layer: 2 }]);
});

layers('a bias that is expanded to the width of the stream belongs to its branch', () => {
  const sketch = new Sketch();
  for (let layer = 0; layer < 2; layer++) {
    const scope = `/layers.${layer}`;
    const { term } = sketch.attention(`${scope}/attn`);
    const shape = sketch.op(scope, 'Shape', `Shape (${sketch.stream})`);
    const bias = sketch.op(scope, 'Expand', `Expand (${sketch.weight(4)}, ${shape})`);
    sketch.sum(scope, sketch.op(scope, 'biased', `Add (${term}, ${bias})`));
    sketch.sum(scope, sketch.ffn(`${scope}/mlp`));
  }
  assert.equal(rowsOf(sketch), [row(0, 'attention ffn'), row(1, 'attention ffn')]);
  assert.equal(gone(run(sketch, 'remove-attention{layers=0-1}')), [0, 1]);
});

layers('a sum in the middle that widens the stream is one of its layer, and no run or window goes over it', () => {
  const sketch = new Sketch();
  const cast = (to: number, from: string): string => sketch.op('', 'Cast', `Cast <to: int = ${to}> (${from})`);
  sketch.stream = sketch.input('float16[B,S,4] hidden');
  // Branches compute in float; the first two sums are float16, the third widens what it takes up.
  const branch = (layer: number): string => {
    const at = sketch.stream;
    const gamma = sketch.weight(4);
    sketch.stream = sketch.op('', 'Norm', `SimplifiedLayerNormalization <axis: int = -1> (${cast(1, at)}, ${gamma})`);
    const term = sketch.ffn(`/layers.${layer}/mlp`);
    sketch.stream = at;
    return term;
  };
  sketch.sum('/layers.0', cast(10, branch(0)));
  sketch.sum('/layers.1', cast(10, branch(1)));
  const term = branch(2);
  sketch.stream = cast(1, sketch.stream);
  sketch.sum('/layers.2', term);
  sketch.sum('/layers.3', branch(3));
  assert.equal(rowsOf(sketch), [row(0, 'ffn'), row(1, 'ffn'), row(2, 'ffn'), row(3, 'ffn')]);
  const refused = (pipeline: string): string => {
    try {
      run(sketch, pipeline);
    } catch (error) {
      if (error instanceof Diagnostic) return error.text;
    }
    return '';
  };
  assert.match(refused('parallelize-ffn{runs=1-2}'), /the residual stream is widened between layers 1 and 2/);
  assert.match(refused('parallelize-blocks{windows=1-2}'), /the residual stream is widened behind layer 1/);
  const { left } = run(sketch, 'instrument');
  assert.match(left[0]?.message ?? '', /a sum that is not the first widens the residual stream/);
  assert.equal(
    factsOf(run(sketch, 'parallelize-ffn{runs=2-3}'), parallelizeFfn).map(({ layers: members }) => members),
    [['2', '3']],
  );
});

layers('an attention whose products are of quantised operands is one', () => {
  const sketch = new Sketch();
  const how = `${sketch.input('float scale')}, ${sketch.input('uint8 zero')}`;
  for (let layer = 0; layer < 2; layer++) {
    const scope = `/layers.${layer}`;
    const quantised = (from: string): string => sketch.op(scope, 'Quantize', `QuantizeLinear (${from}, ${how})`);
    const product = (a: string, b: string): string => {
      const operands = `${quantised(a)}, ${how}, ${quantised(b)}, ${how}, ${how}`;
      const made = sketch.op(scope, 'MatMul_quant', `QLinearMatMul (${operands})`);
      return sketch.op(scope, 'Dequantize', `DequantizeLinear (${made}, ${how})`);
    };
    const project = (part: string): string => sketch.project(scope, part, sketch.stream);
    const [q, k, v] = [project('q'), project('k'), project('v')];
    const turned = sketch.op(scope, 'T', `Transpose <perm: ints = [0, 2, 1]> (${k})`);
    const weights = sketch.op(scope, 'P', `Softmax <axis: int = -1> (${product(q, turned)})`);
    sketch.sum(scope, sketch.project(scope, 'o', product(weights, v)));
    sketch.sum(scope, sketch.ffn(`${scope}/mlp`));
  }
  assert.equal(rowsOf(sketch), [row(0, 'attention ffn'), row(1, 'attention ffn')]);
  assert.equal(gone(run(sketch, 'remove-attention{layers=1}')), [1]);
});

layers(
  'one matrix is a linear: on a norm or on the stream, with its bias, in the place that order or names tell',
  () => {
    const sketch = new Sketch();
    const linear = (scope: string): string => {
      const product = sketch.project(scope, 'MatMul', sketch.stream);
      return sketch.op(scope, 'bias', `Add (${product}, ${sketch.weight(4)})`);
    };
    sketch.sum('/layers.0', linear('/layers.0/lin'));
    sketch.sum('/layers.0', sketch.ffn('/layers.0/mlp'));
    sketch.sum('/layers.1', sketch.attention('/layers.1/attn').term);
    sketch.sum('/layers.1', linear('/layers.1/lin'));
    sketch.sum('/layers.2', linear('/layers.2/one'));
    sketch.sum('/layers.2', linear('/layers.2/two'));
    sketch.sum('/layers.3', linear('/layers.3/lin'));
    sketch.sum('/layers.4', linear('/layers.4/mlp/lin'));
    assert.equal(rowsOf(sketch), [
      row(0, 'linear:attention ffn'),
      row(1, 'attention linear:ffn'),
      row(2, 'linear:attention linear:ffn'),
      row(3, 'linear:unknown'),
      row(4, 'linear:ffn'),
    ]);
    const [first] = layersOf(parseModel(sketch.text())).layers;
    const [branch] = first?.linears ?? [];
    assert.equal(
      [branch?.norm.kind, branch?.linear.inWidth, branch?.linear.outWidth, branch?.bias?.weight.dims, branch?.tail],
      ['none', 4, 4, [4], '+bias'],
    );
  },
);

layers.run();
