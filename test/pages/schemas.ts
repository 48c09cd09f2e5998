/** JSON Schemas: of what `--json` prints and of plan.json, made from the types; of configs, made from the flags. */
import { join } from 'node:path';
import { FUSE_FLAGS } from '../../api/settings/flags.js';
import type { FlagSpec } from '../../cli/options/spec.js';
import { ROOT } from '../helpers/paths.js';
import { SPECS } from './specs.js';
import { type Type, type Types, withTypes } from './types.js';

export const SCHEMAS = join(ROOT, 'schemas');

/** A JSON Schema, or a part of one. */
export type Schema = { readonly [key: string]: unknown };

const DIALECT = 'http://json-schema.org/draft-07/schema#';

/** Every schema by its file below `schemas/`. */
export function schemas(): ReadonlyMap<string, Schema> {
  return new Map([...typeSchemas(), ...configSchemas()]);
}

/** The text of a schema's file. */
export function schemaText(schema: Schema): string {
  return `${JSON.stringify(schema, null, 2)}\n`;
}

function typeSchemas(): [string, Schema][] {
  return withTypes((types) => {
    const made: [string, Schema][] = [];
    const results = types.exportsOf('cli/commands/results.ts').get('Results');
    const plan = types.exportsOf('api/plan/plan-file.ts').get('PlanFile');
    if (!results || !plan) throw new Error('the types of results are gone');
    for (const { name, type } of types.membersOf(types.typeOf(results))) {
      const reader = new TypeReader(types);
      const { properties, required } = reader.objectOf(type);
      const head = {
        kind: { const: `onnx-fuse ${name}` },
        version: { const: 1 },
        status: { enum: ['done', 'failed'] },
      };
      // A result of today's version may say it itself.
      const own = { ...head, ...ERROR, ...properties, kind: head.kind };
      made.push([
        `output/${name}.json`,
        schemaOf(`What the JSON of kind "onnx-fuse ${name}" holds.`, {
          type: 'object',
          properties: own,
          required: [...new Set([...Object.keys(head), ...required])],
          if: { required: ['status'], properties: { status: { const: 'failed' } } },
          // biome-ignore lint/suspicious/noThenProperty: it is a word of JSON Schema
          then: { required: Object.keys(ERROR) },
          definitions: reader.definitions,
        }),
      ]);
    }
    made.push(['output/failure.json', failureSchema()]);
    const reader = new TypeReader(types);
    const { properties, required } = reader.objectOf(types.typeOf(plan));
    const file = { type: 'object', properties: { $schema: { type: 'string' }, ...properties }, required };
    made.push([
      'plan.json',
      schemaOf('The plan that onnx-fuse plan writes.', { ...file, definitions: reader.definitions }),
    ]);
    return made;
  });
}

/** What an error says. */
const ERROR = {
  code: { type: 'string', pattern: '^OF_[A-Z_]+$', description: 'A stable code: docs/errors.md.' },
  place: {
    type: 'string',
    description: 'A file, a line, a layer, a node, a tensor or an option; empty where there is none.',
  },
  message: { type: 'string', description: 'What is wrong.' },
  remedy: { type: 'string', description: 'What to do about it.' },
};

function failureSchema(): Schema {
  const properties = {
    kind: { const: 'onnx-fuse failure' },
    version: { const: 1 },
    status: { const: 'failed' },
    command: { type: 'string', description: 'The command that failed; the main one is called fuse.' },
    ...ERROR,
  };
  return schemaOf('What is given as JSON when a command fails and has no result.', {
    type: 'object',
    properties,
    required: Object.keys(properties),
  });
}

function schemaOf(description: string, schema: Schema): Schema {
  return { $schema: DIALECT, description, ...schema };
}

/** Reads types as schemas. Types with a name are definitions, so that none stands there twice. */
class TypeReader {
  readonly definitions: Record<string, Schema> = {};

  constructor(private readonly types: Types) {}

  /** An object with its members; further ones may come with later versions. */
  objectOf(type: Type): {
    readonly type: 'object';
    readonly properties: Record<string, Schema>;
    readonly required: string[];
  } {
    const properties: Record<string, Schema> = {};
    const required: string[] = [];
    for (const { name, type: each, isOptional, text } of this.types.membersOf(type)) {
      const schema = this.schemaOf(each);
      const description = text.replace(/\s*\n\s*/g, ' ');
      // Nothing counts beside a reference.
      const described = '$ref' in schema ? { allOf: [schema] } : schema;
      properties[name] = description === '' ? schema : { description, ...described };
      if (!isOptional) required.push(name);
    }
    return { type: 'object', properties, required };
  }

  schemaOf(type: Type): Schema {
    if (type.isUnionType()) return this.#unionOf(type.getTypes());
    if (type.isLiteralType()) return { const: type.value };
    const text = this.types.textOf(type);
    if (text === 'string' || text === 'boolean' || text === 'null') return { type: text };
    if (text === 'number') return { type: 'number' };
    if (text === 'unknown' || text === 'any') return {};
    const { checker } = this.types;
    if (checker.isTupleType(type)) {
      const items = checker.getTypeArguments(type as never).map((each) => this.schemaOf(each));
      return { type: 'array', items, minItems: items.length, maxItems: items.length };
    }
    if (checker.isArrayType(type)) {
      const [item] = checker.getTypeArguments(type as never);
      return { type: 'array', items: item ? this.schemaOf(item) : {} };
    }
    const name = /^\w+$/.test(text) ? text : null;
    if (name === null) return this.#membersOf(type);
    if (!(name in this.definitions)) {
      this.definitions[name] = {};
      this.definitions[name] = this.#membersOf(type);
    }
    return { $ref: `#/definitions/${name}` };
  }

  #membersOf(type: Type): Schema {
    const [index] = this.types.checker.getIndexInfosOfType(type);
    if (index) return { type: 'object', additionalProperties: this.schemaOf(index.valueType) };
    return this.objectOf(type);
  }

  #unionOf(all: readonly Type[]): Schema {
    const parts = all.filter((each) => this.types.textOf(each) !== 'undefined');
    const literals = parts.flatMap((each) => (each.isLiteralType() ? [each.value] : []));
    const isBoolean = literals.includes(true) && literals.includes(false);
    const others = parts.filter((each) => !each.isLiteralType()).map((each) => this.schemaOf(each));
    const rest = literals.filter((each) => !isBoolean || typeof each !== 'boolean');
    const options = [
      ...(isBoolean ? [{ type: 'boolean' }] : []),
      ...(rest.length > 0 ? [{ enum: rest }] : []),
      ...others,
    ];
    return options.length === 1 ? (options[0] as Schema) : { anyOf: options };
  }
}

/** What may stand in a file that `--config` names, and in a list of commands. */
function configSchemas(): [string, Schema][] {
  const made: [string, Schema][] = [];
  const commands: Schema[] = [];
  for (const { name, words, flags } of SPECS) {
    const command = name === '' ? 'fuse' : name;
    const properties = Object.fromEntries(Object.entries(flags).map(([flag, spec]) => [flag, flagSchema(spec)]));
    const places = Object.fromEntries(
      words.map((word) => [word.name, { type: 'string', description: `${word.describe}.` }]),
    );
    if (name !== 'run') {
      commands.push({
        type: 'object',
        properties: { command: { const: command }, ...places, ...properties },
        required: ['command', ...words.filter((word) => !word.isOptional).map((word) => word.name)],
        additionalProperties: false,
      });
    }
    // These two read a config of their own form.
    if (name === '' || name === 'passes') continue;
    const content = {
      type: 'object',
      properties: { $schema: { type: 'string' }, ...properties },
      additionalProperties: false,
    };
    made.push([`config/${command}.json`, schemaOf(`A file for onnx-fuse ${command} --config.`, content)]);
  }
  made.push(['config/fuse.json', fuseSchema()]);
  const run = {
    type: 'object',
    properties: {
      $schema: { type: 'string' },
      commands: {
        type: 'array',
        minItems: 1,
        description: 'The commands, in order. Keys are their words and their flags.',
        items: { type: 'object', required: ['command'], oneOf: commands },
      },
    },
    required: ['commands'],
    additionalProperties: false,
  };
  made.push(['run.json', schemaOf('A file for onnx-fuse run.', run)]);
  return made;
}

function fuseSchema(): Schema {
  const flags = Object.fromEntries(
    Object.entries(FUSE_FLAGS).map(([flag, { type, ...spec }]) => [
      flag,
      flagSchema({ ...spec, type: type === 'number' || type === 'boolean' ? type : 'string' }),
    ]),
  );
  const properties = {
    $schema: { type: 'string' },
    ...flags,
    plugins: { type: 'array', items: { type: 'string' }, description: 'Modules with passes, relative to this file.' },
    presets: {
      type: 'object',
      additionalProperties: { type: 'object', properties: flags, additionalProperties: false },
      description: 'Sets of flags, of which --preset chooses one.',
    },
  };
  return schemaOf('A file for onnx-fuse in out --config.', { type: 'object', properties, additionalProperties: false });
}

/** Texts may be written as numbers, and as lists of texts, numbers and runs. */
const TEXT = {
  anyOf: [
    { type: ['string', 'number'] },
    {
      type: 'array',
      items: { anyOf: [{ type: ['string', 'number'] }, { type: 'array', items: { type: ['string', 'number'] } }] },
    },
  ],
};

function flagSchema({
  type,
  describe,
  choices,
  fallback,
}: Pick<FlagSpec, 'type' | 'describe' | 'choices' | 'fallback'>): Schema {
  const form = choices
    ? { enum: [...choices, ...choices.filter((each) => /^\d+$/.test(each)).map(Number)] }
    : type === 'string'
      ? TEXT
      : { type };
  return { description: `${describe}.`, ...form, ...(fallback === undefined ? {} : { default: fallback }) };
}
