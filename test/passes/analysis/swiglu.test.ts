/** SwiGLU operators, which the onnxruntime of the tests does not have yet: what becomes of them is read, not run. */
import * as assert from 'uvu/assert';
import { parseModel } from '../../../ir/index.js';
import { parsePipeline, registry, runPipeline } from '../../../passes/index.js';
import { suite } from '../../helpers/suite.js';

const test = suite('passes/analysis SwiGLU');

const gated = (layer: number, activation: string): string => `
  n_${layer} = SimplifiedLayerNormalization <epsilon: float = 0.00001> (r_0, norm_${layer})
  gate_${layer} = MatMul (n_${layer}, w_gate_${layer})
  up_${layer} = MatMul (n_${layer}, w_up_${layer})
  ${activation.replaceAll('#', String(layer))}
  down_${layer} = MatMul (mid_${layer}, w_down_${layer})
  r_${layer + 1} = Add (${layer === 0 ? 'r_0' : `r_${layer}`}, down_${layer})`;

/** Two FFNs on one sum, 4 and 6 channels wide. */
function fused(first: string, second: string): { operators: string[]; remarks: string[] } {
  const weights = [4, 6].flatMap((width, layer) => [
    `float[2] norm_${layer} = {1, 1}`,
    ...['gate', 'up'].map((part) => `float[2,${width}] w_${part}_${layer} = {${new Array(2 * width).fill(layer + 1)}}`),
    `float[${width},2] w_down_${layer} = {${new Array(2 * width).fill(3)}}`,
  ]);
  const model = parseModel(`<ir_version: 13, opset_import: ["": 28, "com.microsoft": 1]>
tiny (int64[B,S] ids) => (float[B,S,2] logits) <float[3,2] embed = {1, 2, 3, 4, 5, 6}, ${weights.join(', ')}> {
  r_0 = Gather (embed, ids)${gated(0, first)}${gated(1, second)}
  logits = Relu (r_2)
}`);
  const { remarks } = runPipeline(model, parsePipeline('concat-ffn', registry));
  return {
    operators: [...model.graph.nodes()].map(({ op }) => op),
    remarks: remarks.map(({ kind, message }) => `${kind} ${message}`),
  };
}

const ONNX = 'mid_# = SwiGLU (gate_#, up_#)';
const MICROSOFT = 'mid_# = com.microsoft.SwiGLU <activation_alpha: float = 1.702> (gate_#, up_#)';
const SPELLED_OUT = 'sig_# = Sigmoid (gate_#)\n  act_# = Mul (gate_#, sig_#)\n  mid_# = Mul (act_#, up_#)';
const QUICK = 'act_# = com.microsoft.QuickGelu <alpha: float = 1.702> (gate_#)\n  mid_# = Mul (act_#, up_#)';

test('SwiGLU is the same as its parts, of ai.onnx and of com.microsoft', () => {
  for (const [first, second, operator] of [
    [ONNX, SPELLED_OUT, 'SwiGLU'],
    [SPELLED_OUT, ONNX, 'Sigmoid'],
    [MICROSOFT, QUICK, 'com.microsoft.SwiGLU'],
    [ONNX, ONNX, 'SwiGLU'],
  ] as const) {
    const { operators, remarks } = fused(first, second);
    assert.equal(remarks, ['passed 2 FFNs of layers 0, 1 (widths 4+6) became one of 10']);
    assert.is(operators.filter((op) => op === operator).length, 1, operators.join());
    assert.is(operators.filter((op) => op === 'MatMul').length, 3, operators.join());
  }
});

test('SwiGLU with another alpha, or with more than an alpha, is another function', () => {
  for (const [first, second] of [
    [ONNX, MICROSOFT],
    [MICROSOFT, MICROSOFT.replace('1.702', '1.5')],
    [MICROSOFT, MICROSOFT.replace('>', ', swiglu_limit: float = 7.0>')],
    [ONNX, ONNX.replace('(gate_#, up_#)', '(up_#, gate_#)').replace('SwiGLU', 'SwiGLU <alpha: float = 2.0>')],
  ] as const) {
    const { operators, remarks } = fused(first, second);
    assert.is(operators.filter((op) => op === 'MatMul').length, 6);
    assert.match(remarks.join(), /^missed its FFN stays parallel to that of layer 0: activation /);
  }
});

test.run();
