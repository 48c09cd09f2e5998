/** What `onnx-fuse report` takes. */
import { grouped } from '../../api/settings/flag-groups.js';
import { RESULT_FLAGS } from './shared.js';
import { commandSpec } from './spec.js';

export const reportSpec = commandSpec({
  name: 'report',
  summary: 'Draw a plan and its evidence on one HTML page',
  words: [{ name: 'plan', describe: 'The plan.json of onnx-fuse plan' }],
  flags: {
    ...grouped('Output', {
      output: {
        alias: 'o',
        type: 'string',
        fallback: 'report.html',
        describe: 'Write the page to this file',
      },
      verify: {
        type: 'string',
        describe: 'Show what verify --data --json printed for the fused model',
      },
      bench: {
        type: 'string',
        describe: 'Show what bench --json wrote for both models',
      },
    }),
    ...RESULT_FLAGS,
  },
  examples: [
    {
      about: 'a plan with what was measured afterwards',
      line: 'report plan.json --verify verify.json --bench bench.json',
    },
  ],
});
