// @ts-check
/** `npm run demo`: chooses layers of the small model of golden/models on text, fuses it, judges it on other text, and lets both speak. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { main } from '../dist/cli/main.js';

const MODEL = 'golden/models/tales12-fp16.onnx';

mkdirSync('demo', { recursive: true });
const text = readFileSync('golden/models/tales12.txt');
writeFileSync('demo/calib.txt', text.subarray(0, 6144));
writeFileSync('demo/heldout.txt', text.subarray(6144));

/** Runs a command line and shows it; ends the demonstration when it fails. */
async function onnxFuse(/** @type {string[]} */ ...words) {
  console.log(`\n$ onnx-fuse ${words.map((word) => (word.includes(' ') ? `"${word}"` : word)).join(' ')}\n`);
  const code = await main(words);
  if (code !== 0) process.exit(code);
}

const on = (/** @type {string} */ file) => ['--data', file, '--length', '192'];
const [plan, fused] = ['demo/plan.json', 'demo/fused.onnx'];
const evidence = ['--scores', 'all', '--random', '5', '--ablate'];
await onnxFuse('plan', MODEL, '-o', plan, ...on('demo/calib.txt'), '--max-kl', '0.05', ...evidence);
await onnxFuse(MODEL, fused, '--plan', plan);
const [verified, timed] = ['demo/verify.json', 'demo/bench.json'];
const judged = [...on('demo/heldout.txt'), '--max-kl', '0.05', '--prompt', 'Once upon a time'];
await onnxFuse('verify', MODEL, fused, ...judged, '--json', verified);
await onnxFuse('bench', MODEL, fused, '--prompt', '192', '--json', timed);
await onnxFuse('report', plan, '-o', 'demo/report.html', '--verify', verified, '--bench', timed);
