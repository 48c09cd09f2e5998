/** A headless Chromium, spoken to through a pipe (the DevTools protocol): no port, no library. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { skip } from './suite.js';

/** The browser: CHROMIUM, or /usr/bin/chromium. Skips the test where there is none; where CHROMIUM says that it is there, it must be. */
export function needChromium(): string {
  const named = process.env['CHROMIUM'];
  const path = named ?? '/usr/bin/chromium';
  if (existsSync(path)) return path;
  if (named !== undefined) throw new Error(`CHROMIUM=${named} does not exist`);
  return skip(`there is no browser in ${path}`);
}

export type ColorScheme = 'light' | 'dark';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--remote-debugging-pipe',
];

/** Runs `work` with a page, then ends the browser. */
export async function withPage<T>(executable: string, work: (page: Page) => Promise<T>): Promise<T> {
  const profile = mkdtempSync(join(tmpdir(), 'onnx-fuse-chromium-'));
  const browser = spawn(executable, [...FLAGS, `--user-data-dir=${profile}`, 'about:blank'], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    // A group of its own: its helpers write into the profile until they are killed, too.
    detached: true,
  });
  const ended = new Promise<void>((resolve) => browser.once('close', () => resolve()));
  try {
    return await work(await Page.attach(browser));
  } finally {
    if (browser.pid !== undefined) process.kill(-browser.pid, 'SIGKILL');
    await ended;
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Record<string, unknown>;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string };
}

export class Page {
  #next = 1;
  #session: string | null = null;
  /** Addresses of all requests since the last `open`, beyond the page itself. */
  readonly requests: string[] = [];
  readonly #input: Writable;
  readonly #waiting = new Map<
    number,
    { resolve: (result: Record<string, unknown>) => void; reject: (why: Error) => void }
  >();
  readonly #onEvent = new Map<string, () => void>();

  private constructor(browser: ChildProcess) {
    this.#input = browser.stdio[3] as Writable;
    let rest = '';
    (browser.stdio[4] as Readable).setEncoding('utf8').on('data', (text: string) => {
      const parts = (rest + text).split('\0');
      rest = parts.pop() ?? '';
      for (const part of parts) this.#receive(JSON.parse(part) as Message);
    });
    const fail = (why: string) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(why));
      this.#waiting.clear();
    };
    this.#input.on('error', () => fail('the pipe to chromium broke'));
    browser.once('error', (error) => fail(error.message));
    browser.once('close', () => fail('chromium ended'));
  }

  static async attach(browser: ChildProcess): Promise<Page> {
    const page = new Page(browser);
    const { targetId } = await page.#send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await page.#send('Target.attachToTarget', { targetId, flatten: true });
    page.#session = sessionId as string;
    await page.#send('Page.enable');
    await page.#send('Network.enable');
    return page;
  }

  #receive({ id, method, params, result, error }: Message): void {
    if (method === 'Network.requestWillBeSent') {
      this.requests.push(String((params?.['request'] as { url?: unknown } | undefined)?.url));
    }
    if (method !== undefined) this.#onEvent.get(method)?.();
    if (id === undefined) return;
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) waiting?.reject(new Error(error.message));
    else waiting?.resolve(result ?? {});
  }

  #send(method: string, params: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
    const id = this.#next++;
    const session = this.#session === null ? {} : { sessionId: this.#session };
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#input.write(`${JSON.stringify({ id, method, params, ...session })}\0`);
    });
  }

  /** Shows a file in a window of this size. */
  async open(path: string, width: number, scheme: ColorScheme): Promise<void> {
    await this.#send('Emulation.setDeviceMetricsOverride', {
      width,
      height: 900,
      deviceScaleFactor: 1,
      mobile: width < 600,
    });
    await this.#send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
    this.requests.length = 0;
    const loaded = new Promise<void>((resolve) => this.#onEvent.set('Page.loadEventFired', resolve));
    await this.#send('Page.navigate', { url: pathToFileURL(path).href });
    await loaded;
    this.requests.splice(this.requests.indexOf(pathToFileURL(path).href), 1);
  }

  /** The value of a JavaScript expression, as JSON carries it. */
  async evaluate(expression: string): Promise<unknown> {
    const found = await this.#send('Runtime.evaluate', { expression, returnByValue: true });
    if (found['exceptionDetails']) throw new Error(`${expression}: ${JSON.stringify(found['exceptionDetails'])}`);
    return (found['result'] as { value?: unknown }).value;
  }

  /** The whole page as a PNG. */
  async screenshot(): Promise<Buffer> {
    const size = (await this.evaluate('({ width: innerWidth, height: document.documentElement.scrollHeight })')) as {
      width: number;
      height: number;
    };
    const clip = { x: 0, y: 0, ...size, scale: 1 };
    const { data } = await this.#send('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true, clip });
    return Buffer.from(data as string, 'base64');
  }
}
