/** docs/picture.svg: a decoder before and after, drawn from the figures of the benchmark that the README quotes. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../helpers/paths.js';

export const PICTURE = join(ROOT, 'docs', 'picture.svg');

/** The part of test/bench/results/recover-fp32.json that is drawn. */
interface Results {
  readonly layers: number;
  readonly rows: readonly { readonly name: string; readonly size: number; readonly layers: readonly number[] }[];
}

const [LEFT, STEP, WIDTH] = [24, 28, 24];
const [ATTENTION, FFN, MAP] = [34, 54, 7];

/** How many attentions the picture shows as maps. */
const SHOWN = 8;

function rectangle(x: number, y: number, height: number, kind: string): string {
  return `<rect class="${kind}" x="${x}" y="${y}" width="${WIDTH}" height="${height}" rx="3"/>`;
}

/** One row of layers: above what mixes tokens, below the FFN. */
function row(top: number, layers: number, mapped: ReadonlySet<number>): string {
  const parts = Array.from({ length: layers }, (_, i) => {
    const x = LEFT + i * STEP;
    const isMap = mapped.has(i);
    const height = isMap ? MAP : ATTENTION;
    const above = rectangle(x, top + ATTENTION - height, height, isMap ? 'map' : 'attention');
    return above + rectangle(x, top + ATTENTION + 4, FFN, 'ffn');
  });
  return parts.join('');
}

function legend(y: number): string {
  const entry = (x: number, kind: string, text: string): string =>
    `<rect class="${kind}" x="${x}" y="${y - 11}" width="14" height="14" rx="3"/><text x="${x + 20}" y="${y}">${text}</text>`;
  return (
    entry(LEFT, 'attention', 'attention, with its KV cache') +
    entry(LEFT + 260, 'ffn', 'feed-forward network (FFN)') +
    entry(LEFT + 520, 'map', 'fitted linear map, no cache')
  );
}

/** The picture, as SVG that follows the reader's light or dark theme. */
export function picture(): string {
  const results = JSON.parse(readFileSync(join(ROOT, 'test/bench/results/recover-fp32.json'), 'utf8')) as Results;
  const mapped = results.rows.find(({ name, size }) => name === 'map' && size === SHOWN)?.layers ?? [];
  const width = 2 * LEFT + results.layers * STEP;
  const style =
    'text{font:15px system-ui,sans-serif;fill:#24292f}.attention{fill:#bf5b17}.ffn{fill:#3b6fb6}.map{fill:#1b7837}' +
    '@media(prefers-color-scheme:dark){text{fill:#e6edf3}.attention{fill:#f0883e}.ffn{fill:#79b0f2}.map{fill:#56d364}}';
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} 322" role="img" aria-label="A decoder of ${results.layers} layers before and after onnx-fuse: ${mapped.length} attentions became linear maps">
<style>${style}</style>
<text x="${LEFT}" y="22">SmolLM2-135M, ${results.layers} layers, as exported</text>
${row(34, results.layers, new Set())}
<text x="${LEFT}" y="164">after onnx-fuse: ${mapped.length} attentions are one small matrix each, their KV caches are gone</text>
${row(176, results.layers, new Set(mapped))}
${legend(302)}
</svg>
`;
}
