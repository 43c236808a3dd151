import { randomUUID } from 'node:crypto';
import { closeSync, openSync, readSync, rmSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join } from 'node:path';

/** `wrong` changes bytes of every answer, `silent` takes requests and never answers. */
export type Manner = 'right' | 'wrong' | 'silent';

/** Where it listens: a port of this machine that is free, or a unix socket as a peer has it. */
type Listen = { readonly host: string } | { readonly path: string };

/** Stored bytes between two that are changed: no chunk is without one. */
const WRONG_EVERY = 1000;

/**
 * Blobs of a folder by the registry's API (https://github.com/opencontainers/distribution-spec), in any repository: as a
 * registry or a peer that can be made to lie, to be silent, and to be gone.
 */
export class BlobServer implements AsyncDisposable {
  manner: Manner = 'right';
  /** Name and password that it wants; undefined: none. */
  user: string | undefined;
  /** Requests that a token of its is good for; undefined: no tokens are wanted. */
  tokenLife: number | undefined;
  /** Blobs that were answered with bytes, right or wrong. */
  answers = 0;
  /** Tokens that were given. */
  tokens = 0;
  readonly #folder: string;
  readonly #listen: Listen;
  readonly #left = new Map<string, number>();
  #port = 0;
  #server: Server | undefined;

  private constructor(folder: string, listen: Listen) {
    this.#folder = folder;
    this.#listen = listen;
  }

  static async start(folder: string, listen: Listen = { host: '127.0.0.1' }): Promise<BlobServer> {
    const server = new BlobServer(folder, listen);
    await server.up();
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Listens again where it did. */
  async up(): Promise<void> {
    const server = createServer((request, response) => this.#answer(request, response));
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    if ('path' in this.#listen) rmSync(this.#listen.path, { force: true });
    // A port that is named goes before a path.
    const where = 'path' in this.#listen ? this.#listen : { ...this.#listen, port: this.#port };
    server.once('error', reject).listen(where, resolve);
    await promise;
    const address = server.address();
    if (typeof address === 'object' && address !== null) this.#port = address.port;
    this.#server = server;
  }

  /** Ends every connection and takes no other. */
  async down(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    const { promise, resolve } = Promise.withResolvers<void>();
    server?.close(() => resolve());
    server?.closeAllConnections();
    if (server !== undefined) await promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.down();
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    if (this.manner === 'silent') return;
    const { pathname } = new URL(request.url ?? '/', 'http://any');
    if (pathname === '/token') {
      const token = randomUUID();
      this.tokens++;
      this.#left.set(token, this.tokenLife ?? 0);
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ token, expires_in: 300 }));
      return;
    }
    const refusal = this.#refusal(request.headers.authorization);
    if (refusal !== undefined) {
      response.writeHead(401, { 'www-authenticate': refusal }).end();
      return;
    }
    const id = /\/blobs\/sha256:([0-9a-f]{64})$/.exec(pathname)?.[1];
    if (id === undefined) response.writeHead(pathname === '/v2/' ? 200 : 404).end();
    else this.#sendBlob(join(this.#folder, id), request, response);
  }

  /** The challenge for a request that does not show what is wanted. */
  #refusal(authorization = ''): string | undefined {
    if (this.user !== undefined) {
      const wanted = `Basic ${Buffer.from(this.user).toString('base64')}`;
      return authorization === wanted ? undefined : 'Basic realm="blobs"';
    }
    if (this.tokenLife === undefined) return undefined;
    const token = authorization.replace(/^Bearer /, '');
    const left = this.#left.get(token) ?? 0;
    this.#left.set(token, left - 1);
    return left > 0 ? undefined : `Bearer realm="${this.url}/token",service="blobs",scope="repository:any:pull"`;
  }

  #sendBlob(path: string, request: IncomingMessage, response: ServerResponse): void {
    const { size } = statSync(path);
    const [, from = '0', to = String(size - 1)] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const [start, end] = [Number(from), Math.min(size, Number(to) + 1)];
    const bytes = Buffer.alloc(end - start);
    const file = openSync(path, 'r');
    readSync(file, bytes, 0, bytes.length, start);
    closeSync(file);
    if (this.manner === 'wrong') {
      for (let at = 0; at < bytes.length; at += WRONG_EVERY) bytes[at] = (bytes[at] ?? 0) ^ 0x55;
    }
    this.answers++;
    const headers = { 'content-range': `bytes ${start}-${end - 1}/${size}`, 'content-length': bytes.length };
    response.writeHead(206, headers).end(request.method === 'HEAD' ? undefined : bytes);
  }
}
