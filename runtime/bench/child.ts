/** Talking with a child process that answers every request with one message. */
import type { ChildProcess } from 'node:child_process';

/** The next message of a child. */
export function next<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null): void => reject(new Error(`a child process ended (exit code ${code})`));
    child.once('exit', ended);
    child.once('message', (message) => {
      child.off('exit', ended);
      resolve(message as T);
    });
  });
}

/** Sends a request and waits for the answer. */
export function ask<T>(child: ChildProcess, request: object): Promise<T> {
  const answer = next<T>(child);
  child.send(request);
  return answer;
}
