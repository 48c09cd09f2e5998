// @ts-check
/** `npm run demo`: the command line on the small model of golden/models, and where to look afterwards. */
import { mkdirSync } from 'node:fs';
import { main } from '../dist/cli/main.js';

const [input, output, report] = ['golden/models/tales12-fp16.onnx', 'demo/tales12-fused.onnx', 'demo/report.json'];
const options = ['--remove-attention', '3-6', '--prompt', 'Once upon a time', '--report', report];

mkdirSync('demo', { recursive: true });
console.log(
  `onnx-fuse ${[input, output, ...options].map((word) => (word.includes(' ') ? `"${word}"` : word)).join(' ')}\n`,
);
process.exitCode = await main([input, output, ...options]);
if (process.exitCode === 0) {
  console.log(`\nLook at the layers with: node dist/cli/bin.js inspect ${output}`);
  console.log(`Everything that was done and measured is in ${report}; the model is ${output}.`);
}
