/** The public API of the intermediate representation. */
export * from './bytes.js';
export * from './copy.js';
export * from './core.js';
export * from './diagnostic.js';
export { commitFiles, temporaryFor } from './disk/commit.js';
export * from './disk/digest.js';
export { isInside } from './disk/external.js';

export * from './disk/model.js';
export { moveFile } from './disk/move.js';
export type { DataNames } from './disk/output-names.js';
export { SHARES_KEY, type SharedFile } from './disk/shared.js';
export * from './disk/source.js';
export { type Special, specialAt } from './disk/stage.js';
export { removeTemporaries, removeTemporary } from './disk/temporaries.js';
export * from './names.js';
export * from './text/index.js';
export * from './type.js';
export * from './verify.js';
export * from './visible.js';
export * from './walk.js';
export * from './weight.js';
