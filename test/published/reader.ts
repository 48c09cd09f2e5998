/**
 * A reader who does what a page says, command by command, in an empty folder, with onnx-fuse from the packed tarball. What a
 * page takes as given (a model, texts) is put there: small models stand for those that it names. What needs a network or
 * Python is a program of ours, and such a command counts as skipped.
 */
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import * as assert from 'uvu/assert';
import { writeDecoder } from '../bench/make-decoder.js';
import { ROOT } from '../helpers/paths.js';
import { type Suite, skip } from '../helpers/suite.js';
import { blocksOf, commandsOf, type Told } from './commands.js';
import { install, linkRuntime, putProgram, run, type } from './installed.js';

/**
 * Lets every command of `page` be a test of its own, in order. The tarball and the folder are known when they run; `before` is
 * what a reader of the page has done already.
 */
export function follow<T>(
  test: Suite<T>,
  page: string,
  at: (context: T) => { tarball: string; temporary: string },
  before: readonly string[] = [],
): void {
  const text = readFileSync(join(ROOT, page), 'utf8');
  let reader: Reader | null = null;
  for (const told of commandsOf(text)) {
    test(`${page}:${told.line}: ${told.command.split('\n')[0]}`, (context) => {
      const { tarball, temporary } = at(context);
      if (reader === null) {
        reader = new Reader(
          join(temporary, `reader-of-${basename(page, '.md')}`),
          tarball,
          [text, ...before].join('\n'),
        );
        for (const command of before) reader.does({ line: 0, command, inTable: false, language: 'sh' });
      }
      reader.does(told);
    });
  }
}

/** Commands that this machine is not asked to run, and why. */
const SKIPPED: readonly (readonly [RegExp, string])[] = [
  [/^npm ci && npm run demo$/, 'for a clone; the commands that it runs are those of docs/quickstart.md'],
  [/^npm ci && npm test$/, 'for a clone, and this is it'],
  [/npm install --global/, 'is for an image of Docker'],
  [/^mpirun /, 'needs TensorRT, GPUs and a program that the page describes'],
];
/** Commands of which a part is a program of ours. */
const STUBBED: readonly (readonly [RegExp, string])[] = [
  [/^npm install /, 'onnxruntime-node, which comes from the network, is the one of this repository; the rest was done'],
  [/^pip /, 'pip installs from the network: a program that does nothing stood for it'],
  [/^python /, 'Python and a download: a program that puts a small model in its place stood for it'],
  [/^torchrun /, 'torch: a program that only looks for what it is to run stood for it'],
];

/** A speed is reached on a machine whose constants are known; what the plan says where they are not. */
const NOISY = /predicted: .*, 1\.000 times[^\n]*\n[\s\S]*to be doubted: .*(?:not quiet|less than the noise)/;

class Reader {
  readonly #programs: string;
  #line = 0;

  constructor(
    readonly folder: string,
    readonly tarball: string,
    page: string,
  ) {
    mkdirSync(folder);
    this.#programs = join(folder, '..', `${basename(folder)}-programs`);
    this.#putStubs();
    this.#putWhatIsGiven(page);
    // A page may begin behind the installation.
    install(tarball, folder);
    linkRuntime(folder);
  }

  does({ line, command, inTable, language }: Told): void {
    if (language === 'python') skip('needs Python with onnxruntime-genai, and a model with a tokenizer');
    const reason = SKIPPED.find(([form]) => form.test(command))?.[1];
    if (reason !== undefined) skip(reason);
    if (language !== 'sh') this.#runs(command);
    else if (command.startsWith('npm install ')) this.#installs(command);
    else {
      if (inTable && line !== this.#line) this.#startsAnew(command);
      this.#line = line;
      const { status, stdout, stderr } = type(command, this.folder, [
        this.#programs,
        join(this.folder, 'node_modules', '.bin'),
      ]);
      if (status === 1 && NOISY.test(stdout)) skip('the machine was too busy to be measured, as the plan says itself');
      assert.is(status, 0, `${command}\n${stdout.slice(-2000)}\n${stderr.slice(-2000)}`);
    }
    const stub = STUBBED.find(([form]) => form.test(command))?.[1];
    if (stub !== undefined) skip(stub);
  }

  /** The tarball must be called as the page calls it. */
  #installs(command: string): void {
    const [, name] = /^npm install \.\/(\S+\.tgz) onnxruntime-node$/.exec(command) ?? [];
    assert.is(name, basename(this.tarball), command);
    rmSync(join(this.folder, 'node_modules'), { recursive: true, force: true });
    install(this.tarball, this.folder);
    linkRuntime(this.folder);
  }

  /** A program, with the imports that it has; types of TypeScript it has none. */
  #runs(text: string): void {
    writeFileSync(join(this.folder, 'program.mjs'), text);
    const { status, stderr } = run(process.execPath, ['program.mjs'], this.folder);
    assert.is(status, 0, stderr);
  }

  /** What a row of a table writes is not there yet; `model/` has as many layers as the row names, and few where it names none. */
  #startsAnew(command: string): void {
    for (const output of ['out', 'out.onnx', 'out.onnx.data']) {
      rmSync(join(this.folder, output), { recursive: true, force: true });
    }
    const named = /--remove-attention ([\d,-]+)/.exec(command)?.[1]?.match(/\d+/g) ?? ['3'];
    if (command.includes(' model/') && !command.includes('--plan')) {
      // An attention must cost enough to be measured where a speed is asked for.
      const heads = command.includes('--target-speedup') ? 8 : 2;
      putFolder(join(this.folder, 'model'), Math.max(...named.map(Number)) + 2, heads);
    }
  }

  #putStubs(): void {
    const stub = (name: string, lines: string): void => {
      mkdirSync(this.#programs, { recursive: true });
      const script = join(this.#programs, `${name}.mjs`);
      writeFileSync(script, `const words = process.argv.slice(2);\n${lines}\n`);
      putProgram(this.#programs, name, script);
    };
    const small = join(this.#programs, 'small');
    putFolder(small, 5);
    stub('pip', `if (words[0] !== 'install' || words.length < 2) process.exit(2);`);
    // The model builder: -o FOLDER
    stub(
      'python',
      `import { cpSync } from 'node:fs';
      if (words.slice(0, 2).join(' ') !== '-m onnxruntime_genai.models.builder') process.exit(2);
      cpSync(${JSON.stringify(small)}, words[words.indexOf('-o') + 1], { recursive: true });`,
    );
    stub(
      'torchrun',
      `import { existsSync } from 'node:fs';
      const script = words.find((word) => word.endsWith('.py'));
      if (words[0] !== '--nproc-per-node' || !script || !existsSync(script)) process.exit(2);`,
    );
  }

  /** What a page names and takes as given: models, texts, and a file that another page shows. */
  #putWhatIsGiven(page: string): void {
    const text = readFileSync(join(ROOT, 'golden/models/tales12.txt'));
    const write = (content: string | Uint8Array) => (path: string) => writeFileSync(path, content);
    const given: Readonly<Record<string, (path: string) => void>> = {
      'calib.txt': write(text.subarray(0, 1500)),
      'heldout.txt': write(text.subarray(6144, 7644)),
      'demo/calib.txt': write(text.subarray(0, 1500)),
      'demo/heldout.txt': write(text.subarray(6144, 7644)),
      'heldout.jsonl': write(`${JSON.stringify([...text.subarray(6144, 6400)])}\n`),
      // A list of LLM-Drop.
      'config.json': write(JSON.stringify({ drop_attn_list: [4, 6] })),
      'onnx-fuse.config.json': write(configOf('docs/plugins.md')),
      // Three layers have lost their attention; eight heads can be cut for as many GPUs.
      'in.onnx': (path) => putModel(path, 12, { heads: 8, without: [1, 2, 3] }),
      'fused.onnx': (path) => putModel(path, 3, { heads: 8 }),
      'model.onnx': (path) => putModel(path, 3),
      'a.onnx': (path) => putModel(path, 3),
      'b.onnx': (path) => putModel(path, 3),
      'golden/models/tales12-fp16.onnx': (path) => putModel(path, 4),
      'model/': (path) => putFolder(path, 4),
    };
    for (const [name, put] of Object.entries(given)) {
      if (!page.includes(name)) continue;
      mkdirSync(dirname(join(this.folder, name)), { recursive: true });
      put(join(this.folder, name));
    }
    copyFileSync(this.tarball, join(this.folder, basename(this.tarball)));
  }
}

/** The file of commands that a page shows. */
function configOf(page: string): string {
  const shown = blocksOf(readFileSync(join(ROOT, page), 'utf8')).map(({ text }) => text);
  const config = shown.find((text) => text.startsWith('{') && text.includes('"commands"'));
  assert.ok(config, `${page} shows a file of commands`);
  return config;
}

function putModel(path: string, layers: number, { heads = 2, without = [] as readonly number[] } = {}): void {
  writeDecoder(path, {
    form: 'skip',
    dtype: 'float',
    hidden: 32,
    heads,
    kvHeads: heads,
    headSize: 16,
    vocabulary: 256,
    layers: Array.from({ length: layers }, (_, layer) => ({ attention: !without.includes(layer), width: 32 })),
  });
}

function putFolder(folder: string, layers: number, heads = 2): void {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  putModel(join(folder, 'model.onnx'), layers, { heads });
  const names = (kind: 'past_key_values' | 'present', of: 'past' | 'present'): object => ({
    [`${of}_key_names`]: `${kind}.%d.key`,
    [`${of}_value_names`]: `${kind}.%d.value`,
  });
  const decoder = {
    filename: 'model.onnx',
    num_hidden_layers: layers,
    inputs: names('past_key_values', 'past'),
    outputs: names('present', 'present'),
  };
  writeFileSync(join(folder, 'genai_config.json'), JSON.stringify({ model: { type: 'llama', decoder } }));
}
