import { rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { type Logger, monotonicNow, noMetrics, PantalaError, silentLogger, sleep } from '@pantala/base';
import { startProxy } from '@pantala/proxy';
import { openStore } from '@pantala/store';
import { createDownloader } from '@pantala/swarm';
import { createOrigin } from '@pantala/transfer';

/** Bytes of the contents that are fetched: small files, and one that comes in several parts. */
const LENGTHS = [64 * 1024, 64 * 1024, 64 * 1024, 512 * 1024];
/** Bytes of ranges of what is held by then. */
const RANGE_LENGTHS = [4096, 4096, 4096, 128 * 1024];
/** Rounds after which the engine has compiled what there is to compile. */
const ROUNDS = 8;
/** Milliseconds between two rounds, for whatever else is about to start. */
const PAUSE = 10;

/** Milliseconds after which a slow machine gets on with its work. */
const MAX_DURATION = 1000;

/** The rehearsal of a peer that has just started; disposing it ends it. */
export class Rehearsal implements AsyncDisposable {
  readonly #stop = new AbortController();
  /** Settles when nothing of it is left. Never rejects. */
  readonly ended: Promise<void>;

  /**
   * @param directory does not exist, and is gone afterwards
   * @param inEarnest whether somebody downloads already: then the rehearsal is over
   */
  constructor(directory: string, inEarnest: () => boolean, logger: Logger) {
    const begun = monotonicNow();
    this.ended = rehearse(directory, () => this.#stop.signal.aborted || inEarnest()).then(
      () => logger.debug('rehearsed', { milliseconds: Math.round(monotonicNow() - begun) }),
      (error: unknown) => logger.warn('rehearsal failed', { reason: PantalaError.from(error).message }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.ended;
  }
}

/**
 * Goes the ways of small requests before anybody asks for one: through a proxy, a download, an origin and a store of
 * its own, all in this process and on its loopback. The first request to a process that has just started runs code that
 * the engine has never seen, which takes longer than a small file over the network; this spares it that.
 */
async function rehearse(directory: string, over: () => boolean): Promise<void> {
  const end = monotonicNow() + MAX_DURATION;
  await using resources = new AsyncDisposableStack();
  resources.defer(() => rm(directory, { recursive: true, force: true }));
  const deps = { logger: silentLogger, metrics: noMetrics };
  const store = resources.use(await openStore({ directory }, deps));
  const origin = resources.use(createOrigin({}, deps));
  const swarm = resources.use(
    createDownloader(
      { host: { ip: '127.0.0.1', hostname: 'rehearsal', seed: false, port: 0, piecePort: 0 } },
      { ...deps, store, origin },
    ),
  );
  const parts = { downloader: swarm, direct: origin.direct, ...deps };
  const proxy = resources.use(await startProxy({ listen: { port: 0 }, rules: [{ regex: '.' }] }, parts));
  const content = await startContent();
  resources.defer(() => content.close());
  const reader = new Reader(proxy.address.port);
  resources.defer(() => reader.close());
  for (let round = 0; round < ROUNDS; round++) {
    for (const [number, length] of LENGTHS.entries()) {
      const url = `http://127.0.0.1:${content.port}/${round}/${number}/${length}`;
      if (over() || monotonicNow() > end) return;
      await reader.get(url);
      for (const rangeLength of RANGE_LENGTHS) await reader.get(url, Math.max(0, length - rangeLength), length);
    }
    await sleep(PAUSE);
  }
}

interface ContentServer {
  readonly port: number;
  close(): void;
}

/** Zeros, of the length that the last part of the path tells; ranges as an origin gives them. */
async function startContent(): Promise<ContentServer> {
  const zeros = Buffer.alloc(Math.max(...LENGTHS));
  const server = createServer((req: IncomingMessage, res: ServerResponse) => {
    const length = Number(req.url?.split('/').at(-1));
    const [, first = '0', last = ''] = /^bytes=(\d+)-(\d*)$/.exec(req.headers.range ?? '') ?? [];
    const end = Math.min(length, last === '' ? length : Number(last) + 1);
    res.writeHead(206, {
      'content-range': `bytes ${first}-${end - 1}/${length}`,
      'content-length': end - Number(first),
    });
    res.end(zeros.subarray(Number(first), end));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** A client that reads answers and throws them away. */
class Reader {
  readonly #socket;
  #wake: () => void = () => {};
  /** Of the answer that is coming: its head as far as it is there, and the bytes of the body that are not. */
  #head: string | undefined = '';
  #left = 0;
  #failure: PantalaError | undefined;

  constructor(port: number) {
    this.#socket = connect({ host: '127.0.0.1', port, noDelay: true });
    this.#socket.on('data', (part: Buffer) => this.#take(part));
    this.#socket.on('error', (error) => this.#fail(PantalaError.from(error)));
    this.#socket.on('close', () => this.#fail(new PantalaError('unavailable', 'the proxy closed the connection')));
  }

  /** Resolves when all of the content, or of a range of it, was read. */
  async get(url: string, start = 0, end?: number): Promise<void> {
    const range = end === undefined ? '' : `Range: bytes=${start}-${end - 1}\r\n`;
    this.#left = (end ?? Number(url.split('/').at(-1))) - start;
    this.#head = '';
    this.#socket.write(`GET ${url} HTTP/1.1\r\nHost: rehearsal\r\n${range}\r\n`);
    while (this.#left > 0) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(part: Buffer): void {
    let body = part.length;
    if (this.#head !== undefined) {
      this.#head += part.toString('latin1');
      const end = this.#head.indexOf('\r\n\r\n');
      if (end < 0) return;
      body = this.#head.length - end - 4;
      this.#head = undefined;
    }
    this.#left -= body;
    if (this.#left <= 0) this.#wake();
  }

  #fail(error: PantalaError): void {
    this.#failure ??= error;
    this.#wake();
  }
}
