/** Figures of models in files: which models they are of, so that those of different models are not mixed up. */
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { errors, reasonOf } from '../../ir/index.js';
import { apiErrors } from '../basics/errors.js';
import { fileFact } from './file-fact.js';

/** A model as other files refer to it. */
export interface ModelFact {
  /** Its name, without folders. */
  readonly file: string;
  /** Of the .onnx file; data files beside it do not count. */
  readonly bytes: number;
  readonly sha256: string;
}

/** What says of a file of figures what it holds. */
export interface EvidenceHead<Kind extends EvidenceKind = EvidenceKind> {
  readonly kind: `onnx-fuse ${Kind}`;
  readonly version: 1;
  /** The models that were measured: the original first. */
  readonly files: readonly ModelFact[];
}

export type EvidenceKind = 'verification' | 'benchmark';

/** The facts of the model file at `path`. @throws Diagnostic OF_READ. */
export async function modelFact(path: string): Promise<ModelFact> {
  try {
    const [{ size }, { sha256 }] = await Promise.all([stat(path), fileFact(path, 0, true)]);
    return { file: basename(path), bytes: size, sha256: sha256 ?? '' };
  } catch (error) {
    throw errors.readFailed(path, reasonOf(error));
  }
}

/** `figures` of the models at `paths`, with a head. */
export async function withHead<Kind extends EvidenceKind, T extends object>(
  kind: Kind,
  paths: readonly string[],
  figures: T,
): Promise<EvidenceHead<Kind> & T> {
  return { kind: `onnx-fuse ${kind}`, version: 1, files: await Promise.all(paths.map(modelFact)), ...figures };
}

/**
 * The head of what a file at `place` holds, when that is of this kind and of `original`.
 * @throws Diagnostic OF_EVIDENCE.
 */
export function readHead(
  value: unknown,
  kind: EvidenceKind,
  original: { readonly sha256: string },
  place: string,
): EvidenceHead {
  const head = (typeof value === 'object' && value !== null ? value : {}) as Partial<
    Record<keyof EvidenceHead, unknown>
  >;
  if (head.kind !== `onnx-fuse ${kind}` || head.version !== 1) {
    throw apiErrors.evidence(place, `it is no onnx-fuse ${kind} of version 1, or does not say so`);
  }
  const files = Array.isArray(head.files) ? (head.files as Partial<ModelFact>[]) : [];
  if (files.length === 0 || files.some((file) => typeof file?.sha256 !== 'string')) {
    throw apiErrors.evidence(place, 'it does not say which models it is of');
  }
  const found = files[0]?.sha256 as string;
  if (found !== original.sha256) {
    const why = `its original has sha256 ${short(found)}, that of the plan ${short(original.sha256)}`;
    throw apiErrors.evidence(place, why, 'measure the model that the plan was made for');
  }
  return head as EvidenceHead;
}

/** @throws Diagnostic OF_EVIDENCE when the changed models of two files are not one: `place` is the second. */
export function checkSameResult(first: EvidenceHead, second: EvidenceHead, place: string): void {
  const [a, b] = [first, second].map(({ files }) => files[1]?.sha256);
  if (a === undefined || b === undefined || a === b) return;
  const why = `its changed model has sha256 ${short(b)}, that of the other file ${short(a)}`;
  throw apiErrors.evidence(place, why, 'measure one changed model with both');
}

function short(sha256: string): string {
  return `${sha256.slice(0, 12)}...`;
}
