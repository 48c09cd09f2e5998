/** Asks onnxruntime in a process of its own, which is started again when it dies. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export interface OrtQuestion {
  readonly bytes: Uint8Array;
  /** Run against this one, too. */
  readonly reference: Uint8Array | null;
  readonly folder: string;
}

export interface OrtAnswer {
  readonly loads: boolean;
  readonly why?: string;
  /** Of those that were to be compared one failed in a node, or the second gave outputs of other sizes than it states. */
  readonly fails?: boolean;
  /** Of the comparison, where there was one. */
  readonly relative?: number;
  readonly tolerance?: number;
}

/** Less than a case of ours may take. */
const PATIENCE_MS = 9_000;

export class Ort {
  #child: ChildProcess | null = null;
  /** `onAsk` is called before each question. */
  constructor(readonly onAsk: () => void) {}

  /** What onnxruntime says; null where it died or did not come back. */
  async ask(question: OrtQuestion): Promise<OrtAnswer | null> {
    this.onAsk();
    this.#child ??= fork(fileURLToPath(new URL('./ort-child.js', import.meta.url)), [], {
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    const child = this.#child;
    return new Promise((resolve) => {
      const finish = (answer: OrtAnswer | null): void => {
        clearTimeout(timer);
        child.removeAllListeners();
        if (!answer) this.close();
        resolve(answer);
      };
      const timer = setTimeout(() => finish(null), PATIENCE_MS);
      child.once('message', (answer: OrtAnswer) => finish(answer));
      child.once('exit', () => finish(null));
      child.send(question);
    });
  }

  close(): void {
    this.#child?.removeAllListeners();
    this.#child?.kill('SIGKILL');
    this.#child = null;
  }
}
