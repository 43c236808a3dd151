import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { createServer as createTlsServer } from 'node:tls';
import { gzipSync } from 'node:zlib';
import type { ServedBytes } from './content.ts';
import { drained } from './sockets.ts';

/** How a path of the origin misbehaves. Everything may be combined. */
export interface Oddities {
  /** Ignores `Range` and does not offer it. */
  readonly noRanges?: boolean;
  /** Offers ranges, and ignores them all the same. */
  readonly ignoresRange?: boolean;
  /** Transfer-Encoding: chunked without a length; ranges are ignored. */
  readonly chunked?: boolean;
  /** HTTP/1.0: no length, the end of the connection is the end of the body. */
  readonly http10?: boolean;
  /** 307 to another path whose signature is good for so many milliseconds; 403 after that. */
  readonly redirectFor?: number;
  /** Where that other path is: the URL of another origin that serves the same path; this one by default. */
  readonly redirectTo?: string;
  /** 416 to every range. */
  readonly unsatisfiable?: boolean;
  /** Added to the length that Content-Length and Content-Range tell. */
  readonly lengthError?: number;
  /** Added to the offset that Content-Range tells. */
  readonly offsetError?: number;
  /** Ends the connection after so many bytes of a body. */
  readonly truncateAfter?: number;
  /** Sends the content gzipped although nobody asked, with Content-Encoding. */
  readonly gzip?: boolean;
  /** Wants a bearer token from `/token`, good for so many requests. */
  readonly tokenRequests?: number;
  /** Bytes a second. */
  readonly bytesPerSecond?: number;
  /** Never answers. */
  readonly silent?: boolean;
  /** This status instead of the content; 429 and 503 come with `Retry-After: 1`. */
  readonly status?: number;
  /** HEAD is answered 405. */
  readonly noHead?: boolean;
  /** The oddities above hold for the first so many requests only. */
  readonly times?: number;
}

export interface PathCount {
  requests: number;
  /** Bytes of bodies that were handed to the network; of a body that was broken off, more than had arrived. */
  bytes: number;
  /** Bodies of the whole content that were sent to their end. */
  wholeBodies: number;
  /** Values of `Range`, in order; empty for none. */
  readonly ranges: string[];
  /** Headers of the last request, names in lower case. */
  headers: Readonly<Record<string, string>>;
}

interface Served {
  readonly content: ServedBytes;
  readonly oddities: Oddities;
  readonly headers: Readonly<Record<string, string>>;
  readonly count: PathCount;
}

interface Request {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
}

const HEAD_LIMIT = 64 * 1024;
/** Milliseconds: longer than anybody waits. */
const SILENCE = 3_600_000;

/**
 * An HTTP server on bare sockets: it can lie about everything, and counts what it gave for each path.
 */
export class Origin implements AsyncDisposable {
  readonly url: string;
  readonly #server: Server;
  readonly #served = new Map<string, Served>();
  readonly #sockets = new Set<Socket>();
  readonly #tokens = new Map<string, number>();
  /** Tokens that were handed out. */
  tokens = 0;

  private constructor(server: Server, url: string) {
    this.#server = server;
    this.url = url;
  }

  static async start(
    listen: { readonly host: string; readonly port?: number },
    tls?: { readonly key: string; readonly cert: string },
  ): Promise<Origin> {
    const server = tls === undefined ? createServer() : createTlsServer(tls);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once('error', reject).listen({ host: listen.host, port: listen.port ?? 0 }, resolve);
    await promise;
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const origin = new Origin(server, `${tls === undefined ? 'http' : 'https'}://${listen.host}:${port}`);
    server.on(tls === undefined ? 'connection' : 'secureConnection', (socket: Socket) => {
      void origin.#converse(socket).catch(() => socket.destroy());
    });
    return origin;
  }

  /** Puts content at a path. Resolves to its URL. */
  serve(
    path: string,
    content: ServedBytes,
    oddities: Oddities = {},
    headers: Readonly<Record<string, string>> = {},
  ): string {
    this.#served.set(path, {
      content,
      oddities,
      headers,
      count: emptyCount(),
    });
    return this.url + path;
  }

  count(path: string): PathCount {
    return this.#served.get(path)?.count ?? emptyCount();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    await promise;
  }

  async #converse(socket: Socket): Promise<void> {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket)).on('error', () => socket.destroy());
    let held = '';
    for await (const part of socket as AsyncIterable<Buffer>) {
      held += part.toString('latin1');
      if (held.length > HEAD_LIMIT) break;
      for (let end = held.indexOf('\r\n\r\n'); end >= 0; end = held.indexOf('\r\n\r\n')) {
        const request = parse(held.slice(0, end), this.url);
        // Bodies are never looked at: what a PUT sends is skipped when it came with its head.
        held = held.slice(end + 4 + Number(request.headers['content-length'] ?? 0));
        await this.#answer(request, socket);
        if (socket.destroyed || socket.writableEnded) return;
      }
    }
    socket.destroy();
  }

  async #answer(request: Request, socket: Socket): Promise<void> {
    const path = request.url.pathname;
    if (path === '/token') {
      const token = `t${++this.tokens}`;
      const limits = [...this.#served.values()].map(({ oddities }) => oddities.tokenRequests ?? Infinity);
      this.#tokens.set(token, Math.min(...limits));
      sendText(socket, 200, JSON.stringify({ token, expires_in: 300 }), { 'content-type': 'application/json' });
      return;
    }
    const signed = path.startsWith('/signed/');
    const served = this.#served.get(signed ? path.slice('/signed'.length) : path);
    if (served === undefined) {
      sendText(socket, 404, 'not found');
      return;
    }
    const { count } = served;
    count.headers = request.headers;
    const active = served.oddities.times === undefined || count.requests < served.oddities.times;
    const odd: Oddities = active ? served.oddities : {};
    count.requests++;
    count.ranges.push(request.headers.range ?? '');
    if (signed) {
      if (Number(request.url.searchParams.get('expires')) < Date.now()) sendText(socket, 403, 'expired');
      else await this.#sendContent(request, socket, served, { ...odd, redirectFor: undefined as never });
      return;
    }
    if (odd.silent) {
      await sleep(SILENCE, undefined, { ref: false });
      return;
    }
    if (odd.status !== undefined) {
      const retry = odd.status === 429 || odd.status === 503;
      return sendText(socket, odd.status, `status ${odd.status}`, retry ? { 'retry-after': '1' } : {});
    }
    if (odd.tokenRequests !== undefined && !this.#admit(request)) {
      const challenge = `Bearer realm="${this.url}/token",service="origin",scope="read"`;
      return sendText(socket, 401, 'token wanted', { 'www-authenticate': challenge });
    }
    if (odd.redirectFor !== undefined) {
      const location = `${odd.redirectTo ?? this.url}/signed${path}?expires=${Date.now() + odd.redirectFor}`;
      return sendText(socket, 307, '', { location });
    }
    await this.#sendContent(request, socket, served, odd);
  }

  #admit(request: Request): boolean {
    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1];
    const left = token === undefined ? 0 : (this.#tokens.get(token) ?? 0);
    if (left <= 0 || token === undefined) return false;
    this.#tokens.set(token, left - 1);
    return true;
  }

  async #sendContent(request: Request, socket: Socket, served: Served, odd: Oddities): Promise<void> {
    const { content, count } = served;
    if (request.method === 'HEAD' && odd.noHead) return sendText(socket, 405, '');
    if (request.method !== 'GET' && request.method !== 'HEAD') return sendText(socket, 200, request.method);
    const deaf = odd.noRanges || odd.ignoresRange || odd.chunked || odd.http10 || odd.gzip;
    const asked = deaf ? undefined : request.headers.range;
    const range = asked === undefined ? undefined : parseRange(asked, content.length);
    if (asked !== undefined && (range === undefined || odd.unsatisfiable)) {
      return sendText(socket, 416, '', { 'content-range': `bytes */${content.length}` });
    }
    const [start, end] = range ?? [0, content.length];
    const zipped = odd.gzip ? gzipSync(content.slice(0, content.length), { level: 1 }) : undefined;
    const wrong = odd.lengthError ?? 0;
    const length = zipped?.length ?? end - start;
    const total = content.length + wrong;
    const shift = odd.offsetError ?? 0;
    const head: Record<string, string> = {
      date: new Date().toUTCString(),
      etag: `"${content.length}"`,
      ...served.headers,
      ...(odd.noRanges || odd.chunked || odd.http10 ? {} : { 'accept-ranges': 'bytes' }),
      ...(zipped === undefined ? {} : { 'content-encoding': 'gzip' }),
      ...(range === undefined ? {} : { 'content-range': `bytes ${start + shift}-${end - 1 + shift}/${total}` }),
      ...(odd.chunked ? { 'transfer-encoding': 'chunked' } : {}),
      ...(odd.chunked || odd.http10 ? {} : { 'content-length': `${length + wrong}` }),
      ...(odd.http10 ? { connection: 'close' } : {}),
    };
    socket.write(formatHead(odd.http10 ? '1.0' : '1.1', range === undefined ? 200 : 206, head));
    if (request.method === 'HEAD') {
      if (odd.http10) socket.end();
      return;
    }
    let sent = 0;
    for (const whole of zipped === undefined ? content.parts(start, end) : [zipped]) {
      for (const part of odd.bytesPerSecond === undefined ? [whole] : slices(whole, odd.bytesPerSecond / 10)) {
        const left = (odd.truncateAfter ?? Infinity) - sent;
        const bytes = part.length > left ? part.subarray(0, left) : part;
        if (odd.chunked) socket.write(`${bytes.length.toString(16)}\r\n`);
        const flowing = socket.write(bytes);
        if (odd.chunked) socket.write('\r\n');
        sent += bytes.length;
        count.bytes += bytes.length;
        if (sent >= (odd.truncateAfter ?? Infinity)) {
          socket.destroySoon();
          return;
        }
        if (!flowing) await drained(socket);
        if (odd.bytesPerSecond !== undefined) await sleep((1000 * bytes.length) / odd.bytesPerSecond);
        if (socket.destroyed) return;
      }
    }
    if (sent === content.length) count.wholeBodies++;
    if (odd.chunked) socket.write('0\r\n\r\n');
    // A length that was told too long or too short leaves the connection out of step.
    if (odd.http10 || wrong !== 0) socket.end();
  }
}

function emptyCount(): PathCount {
  return { requests: 0, bytes: 0, wholeBodies: 0, ranges: [], headers: {} };
}

function* slices(buffer: Buffer, length: number): Generator<Buffer> {
  const step = Math.max(1, Math.floor(length));
  for (let at = 0; at < buffer.length; at += step) yield buffer.subarray(at, at + step);
}

function parse(head: string, base: string): Request {
  const [first = '', ...lines] = head.split('\r\n');
  const [method = '', target = '/'] = first.split(' ');
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(':');
    if (colon > 0) headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  return { method, url: new URL(target, base), headers };
}

/** One range of RFC 9110 as [start, end); undefined when it cannot be satisfied. */
function parseRange(value: string, length: number): [number, number] | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(value);
  if (match === null) return undefined;
  const [, from = '', to = ''] = match;
  if (from === '') return to === '' || length === 0 ? undefined : [Math.max(0, length - Number(to)), length];
  const start = Number(from);
  const end = to === '' ? length : Math.min(length, Number(to) + 1);
  return start < end ? [start, end] : undefined;
}

function formatHead(version: string, status: number, headers: Readonly<Record<string, string>>): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/${version} ${status} Status\r\n${lines.join('')}\r\n`;
}

function sendText(socket: Socket, status: number, body: string, headers: Readonly<Record<string, string>> = {}): void {
  socket.write(formatHead('1.1', status, { ...headers, 'content-length': `${body.length}` }) + body);
}
