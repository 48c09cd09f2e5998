/** `onnx-fuse pack out.onnx whole.onnx` */
import { parseByteSize, sizeText } from '../../api/basics/byte-size.js';
import { silent, stderrTalk } from '../../api/basics/progress.js';
import { modelFile } from '../../api/folder/model-folder.js';
import { fuseFile } from '../../api/fuse/fuse.js';
import type { packSpec } from '../options/pack.js';
import type { ArgumentsOf } from '../options/spec.js';
import type { Outcome } from './results.js';

export async function packCommand(args: ArgumentsOf<typeof packSpec>): Promise<Outcome> {
  const size = args['max-shard-size'];
  const { output } = await fuseFile({
    input: modelFile(args.model),
    output: args.whole,
    pipeline: '',
    external: args.external,
    maxShardBytes: size === undefined ? undefined : parseByteSize(size, 'option max-shard-size'),
    talk: args.quiet ? silent : stderrTalk(),
  });
  const render = (): string =>
    args.quiet
      ? ''
      : [...output.map(({ path, bytes }) => `${path}  ${sizeText(bytes)}`), 'these files need no other'].join('\n');
  return { kind: 'packing', result: { output }, render };
}
