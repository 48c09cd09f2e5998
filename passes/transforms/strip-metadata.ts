/**
 * Takes out what exporters leave in a file about the machine it was made on: stack traces of the exporting program, doc
 * strings, and metadata that name files by their absolute path.
 *
 *     MatMul <metadata "pkg.torch.onnx.stack_trace" "File \"/home/me/model.py\", line 26, in forward ...">
 *
 * becomes a MatMul without this entry. Nothing that is computed changes. Metadata that name modules and layers stay, because
 * layers are numbered by them. It is not part of the default pipeline: whoever gives a model away asks for it.
 *
 * What it will not find: paths in names of nodes and values, in sparse initializers and in training graphs; a path that is
 * neither below a usual folder of an operating system nor that of a source file.
 */

import { type DocumentedText, filterDocumentation } from '../../ir/proto/documentation.js';
import { counted } from '../../ir/visible.js';
import { factsAs } from '../framework/facts.js';
import { choiceOption } from '../framework/options.js';
import { definePass } from '../framework/pass.js';

const KINDS = ['stack-traces', 'source-paths', 'doc-strings'] as const;
type Kind = (typeof KINDS)[number];

/** Texts of one kind that were taken out. */
export interface Stripped {
  readonly kind: Kind;
  readonly texts: number;
  /** What they took in UTF-8, without keys. */
  readonly bytes: number;
}

const CHOICES = ['strip', 'keep'] as const;

export const stripMetadata = definePass({
  id: 'strip-metadata',
  summary: 'take out stack traces, doc strings and source paths that the exporter left',
  effect: 'exact',
  options: {
    'stack-traces': choiceOption('stack traces, in metadata and in doc strings', CHOICES, 'strip'),
    'source-paths': choiceOption('other metadata and doc strings that name files by absolute path', CHOICES, 'strip'),
    'doc-strings': choiceOption('other doc strings', CHOICES, 'strip'),
  },
  statistics: { texts: 'texts taken out' },
  facts: factsAs<Stripped>({
    describe: (stripped) => {
      const parts = stripped.map(({ kind, texts }) => counted(texts, kind.replace('-', ' ').replace(/s$/, '')));
      const bytes = stripped.reduce((sum, fact) => sum + fact.bytes, 0);
      if (parts.length === 0) return ['no stack traces, source paths or doc strings to strip'];
      return [`stripped ${parts.join(', ')}: ${counted(bytes, 'byte')} of text`];
    },
  }),
  run({ model, options, passed, count, fact }) {
    const found = new Map(KINDS.map((kind) => [kind, { texts: 0, bytes: 0 }]));
    filterDocumentation(model, (documented) => {
      const kind = kindOf(documented);
      const sums = kind && options[kind] === 'strip' && found.get(kind);
      if (!sums) return true;
      sums.texts++;
      sums.bytes += new TextEncoder().encode(documented.text).length;
      return false;
    });
    for (const [kind, sums] of found) {
      if (sums.texts === 0) continue;
      fact({ kind, ...sums });
      count('texts', sums.texts);
      passed(`${sums.texts} ${kind.replace('-', ' ')} were taken out`);
    }
  },
});

/** A line of a trace: Python's own form, or that of TorchScript. */
const TRACE_LINE = /\bFile "[^"\n]+", line \d+|[^\s()]\.\w+\(\d+\): \w+/;
/** An absolute path below a folder that machines have, or of a source file. Names of modules may look like other paths. */
const PATH =
  /(?:^|[\s"'`(=,:[])(?:\/(?:home|Users|root|tmp|usr|opt|var|mnt|workspace)\/|[A-Za-z]:[\\/]|(?:\/[^\s"'/]+)+\.(?:py|ipynb|cpp|cc|cu)\b)/;

/** What a text is; null for metadata that say nothing about a machine. */
function kindOf({ key, text }: DocumentedText): Kind | null {
  if (TRACE_LINE.test(text) || (key !== null && /stack_?trace/i.test(key))) return 'stack-traces';
  if (PATH.test(text)) return 'source-paths';
  return key === null ? 'doc-strings' : null;
}
