/** The types of the sources as the TypeScript compiler sees them: pages and schemas are made of these. */
import { join } from 'node:path';
import {
  API,
  type Checker,
  NodeBuilderFlags,
  SignatureKind,
  SymbolFlags,
  type Symbol as TsSymbol,
  type Type,
} from 'typescript/unstable/sync';
import { ROOT } from '../helpers/paths.js';

export { SymbolFlags, type TsSymbol, type Type };

/** Something that a file exports, or a member of a type. */
export interface Named {
  readonly name: string;
  readonly symbol: TsSymbol;
  /** Its doc comment, without tags. */
  readonly text: string;
  readonly tags: readonly { readonly name: string; readonly text: string }[];
}

export interface Member extends Named {
  readonly type: Type;
  readonly isOptional: boolean;
}

/** The compiler at work on this repository, for as long as `work` takes. */
export function withTypes<T>(work: (types: Types) => T): T {
  const api = new API({ cwd: ROOT });
  try {
    const config = join(ROOT, 'tsconfig.json');
    const project = api.updateSnapshot({ openProject: config }).getProject(config);
    if (!project) throw new Error(`the compiler does not open ${config}`);
    const exportsOf = (file: string): readonly TsSymbol[] => {
      const source = project.program.getSourceFile(join(ROOT, file));
      const module = source && project.checker.getSymbolAtLocation(source);
      if (!module) throw new Error(`${file} is no module`);
      return project.checker.getExportsOfModule(module);
    };
    return work(new Types(project.checker, exportsOf));
  } finally {
    api.close();
  }
}

/** What is asked of the compiler. */
export class Types {
  constructor(
    readonly checker: Checker,
    private readonly symbolsIn: (file: string) => readonly TsSymbol[],
  ) {}

  /** What a file exports, by name. */
  exportsOf(file: string): ReadonlyMap<string, Named> {
    const found = this.symbolsIn(file).map((symbol): [string, Named] => {
      const own = symbol.flags & SymbolFlags.Alias ? this.checker.getAliasedSymbol(symbol) : symbol;
      return [symbol.name, this.#named(symbol.name, own)];
    });
    return new Map(found);
  }

  /** The type that a name stands for. */
  typeOf({ symbol }: Named): Type {
    return this.checker.getDeclaredTypeOfSymbol(symbol);
  }

  /** The members of an object, those that it inherits included. */
  membersOf(type: Type): readonly Member[] {
    return this.checker.getPropertiesOfType(type).map((symbol) => ({
      ...this.#named(symbol.name, symbol),
      type: this.checker.getTypeOfSymbol(symbol) as Type,
      isOptional: (symbol.flags & SymbolFlags.Optional) !== 0,
    }));
  }

  /** `(request: FusionRequest) => Promise<Fusion>`, for each form of a function. */
  signaturesOf({ symbol }: Named): readonly string[] {
    const type = this.checker.getTypeOfSymbol(symbol) as Type;
    return this.isFunction(type) ? [this.textOf(type)] : [];
  }

  isFunction(type: Type): boolean {
    return this.checker.getSignaturesOfType(type, SignatureKind.Call).length > 0;
  }

  /** A type as it is written; what is optional may be undefined anyway. */
  textOf(type: Type, isOptional = false): string {
    const text = this.#choicesOf(type) ?? this.checker.typeToString(type, undefined, NodeBuilderFlags.NoTruncation);
    return isOptional ? text.replace(/ \| undefined\b/, '') : text;
  }

  /** Choices, spelled out where the type has a name; null for any other type. */
  #choicesOf(type: Type): string | null {
    if (!type.isUnionType()) return null;
    const words = type.getTypes().map((each) => this.checker.typeToString(each));
    const isChoice = words.every((word) => /^(?:"[^"]*"|[\d.]+|null|undefined)$/.test(word));
    // As the compiler writes them: what is nothing comes last.
    const last = (word: string): number => ['null', 'undefined'].indexOf(word);
    return isChoice ? words.sort((a, b) => last(a) - last(b)).join(' | ') : null;
  }

  #named(name: string, symbol: TsSymbol): Named {
    const tags = this.checker.getJsDocTagsOfSymbol(symbol).map((tag) => ({
      name: tag.name,
      text: typeof tag.text === 'string' ? tag.text : '',
    }));
    return { name, symbol, text: this.checker.getDocumentationCommentOfSymbol(symbol).trim(), tags };
  }
}
