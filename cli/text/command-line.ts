/** Command lines that a person copies. */
import { basename, isAbsolute } from 'node:path';

/** `onnx-fuse` with these words, as a shell reads them back. */
export function commandLineOf(...words: readonly string[]): string {
  return ['onnx-fuse', ...words].map(quoted).join(' ');
}

/** The command that applies a plan to a model, which may be a folder. */
export function applyingCommand(model: string, plan: string, isFolder = false): string {
  return commandLineOf(model, isFolder ? 'out' : 'out.onnx', '--plan', plan);
}

/** The command that finds out what of a model can go. */
export function planningCommand(model: string): string {
  return commandLineOf('plan', model, '-o', 'plan.json', '--data', 'calib.txt', '--max-kl', '0.05');
}

/** A path for a page that others read too: as it was typed, but without the folders of this machine. */
export function sharedPath(path: string): string {
  return isAbsolute(path) ? basename(path) : path;
}

/** A word as a shell reads it back. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
