import type { Socket } from 'node:net';
import { PantalaError } from '@pantala/base';
import { BodyReader } from './body-reader.ts';
import type { OpenedSocket } from './connector.ts';
import { type CompiledOriginOptions, MIN_PROGRESS } from './options.ts';
import {
  framingOf,
  headEnd,
  keepsAlive,
  MAX_HEAD_LENGTH,
  parseResponseHead,
  type ResponseHead,
} from './response-head.ts';
import { ProgressWatch, type SocketReader } from './socket-reader.ts';

export interface HttpRequest {
  readonly method: string;
  readonly url: URL;
  /** Names and values in turn. */
  readonly headers: readonly string[];
  /** With a `length` it is sent as it is, without one in chunks. */
  readonly body?: AsyncIterable<Uint8Array>;
  readonly bodyLength?: number;
}

export interface HttpAnswer {
  readonly head: ResponseHead;
  readonly body: BodyReader;
  /** Whether the connection can carry another request once the body was read. */
  readonly reusable: boolean;
}

/** Informational answers (RFC 9110 §15.2) before the final one. */
const MAX_INFORMATIONAL = 8;

/** One connection to an origin; one request at a time. */
export class HttpConnection {
  readonly #socket: Socket;
  readonly #reader: SocketReader;
  readonly #options: CompiledOriginOptions;
  #idleTimer: NodeJS.Timeout | undefined;
  /** Requests that it carried. */
  requests = 0;

  constructor(opened: OpenedSocket, options: CompiledOriginOptions) {
    this.#socket = opened.socket;
    this.#reader = opened.reader;
    this.#options = options;
  }

  /** Whether it may carry a request: open, and silent since the last answer. */
  get idle(): boolean {
    return !this.#socket.destroyed && this.#socket.writable && !this.#reader.disturbed;
  }

  onClose(listener: () => void): void {
    this.#socket.once('close', listener);
  }

  /** Between two requests: memory is let go of, and the connection closes when none comes in `timeout` ms. */
  rest(timeout: number): void {
    this.#reader.release();
    this.#idleTimer = setTimeout(() => this.#socket.destroy(), timeout);
    this.#idleTimer.unref();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /**
   * Sends a request and reads the head of the answer.
   *
   * @throws `unavailable` when the connection breaks, `origin` for an answer that is no HTTP, `deadline-exceeded`
   */
  async exchange(request: HttpRequest): Promise<HttpAnswer> {
    this.requests++;
    clearTimeout(this.#idleTimer);
    this.#socket.write(formatRequest(request), 'latin1');
    let sent = request.body === undefined;
    let uploadFailure: unknown;
    if (request.body !== undefined) {
      this.#upload(request.body, request.bodyLength).then(
        () => {
          sent = true;
        },
        (error: unknown) => {
          uploadFailure = error;
          this.#socket.destroy();
        },
      );
    }
    try {
      const head = await this.#readHead();
      const framing = framingOf(head, request.method);
      const watch = new ProgressWatch(this.#reader, this.#options.silenceTimeout, MIN_PROGRESS);
      const body = new BodyReader(this.#reader, watch, framing);
      // An answer before the end of the upload (a refusal, mostly) leaves the connection in the middle of a body.
      return { head, body, reusable: sent && keepsAlive(head) && framing.kind !== 'close' };
    } catch (error) {
      throw uploadFailure === undefined ? error : PantalaError.from(uploadFailure);
    }
  }

  async #readHead(): Promise<ResponseHead> {
    const deadline = performance.now() + this.#options.headTimeout;
    for (let informational = 0; informational <= MAX_INFORMATIONAL; informational++) {
      const head = await this.#readOneHead(deadline);
      if (head.status === 101) throw new PantalaError('origin', 'the origin changes the protocol unasked');
      if (head.status >= 200) return head;
    }
    throw new PantalaError('origin', `more than ${MAX_INFORMATIONAL} informational answers`);
  }

  async #readOneHead(deadline: number): Promise<ResponseHead> {
    let bytes: Buffer = Buffer.alloc(0);
    for (;;) {
      const part = await this.#reader.read(Math.max(1, deadline - performance.now()));
      if (part === undefined)
        throw new PantalaError('unavailable', 'the origin closed the connection without an answer');
      // Copied when it comes in parts: a part is only valid until the next is read.
      const before = bytes.length;
      bytes = before === 0 ? part : Buffer.concat([bytes, part]);
      const end = headEnd(bytes);
      if (end >= 0) {
        this.#reader.unread(part.subarray(end - before));
        return parseResponseHead(bytes.subarray(0, end));
      }
      if (bytes.length > MAX_HEAD_LENGTH) {
        throw new PantalaError('origin', `the head of the answer has more than ${MAX_HEAD_LENGTH} bytes`);
      }
      if (before === 0) bytes = Buffer.from(part);
    }
  }

  async #upload(body: AsyncIterable<Uint8Array>, length: number | undefined): Promise<void> {
    let sent = 0;
    // By hand: leaving a loop early would destroy the caller's stream, and with it the connection that still waits
    // for the answer.
    const parts = body[Symbol.asyncIterator]();
    for (let next = await parts.next(); next.done !== true; next = await parts.next()) {
      const part = next.value;
      if (this.#socket.destroyed) return;
      if (part.length === 0) continue;
      sent += part.length;
      if (length !== undefined && sent > length)
        throw new PantalaError('invalid-argument', 'the body is longer than told');
      if (length === undefined) this.#socket.write(`${part.length.toString(16)}\r\n`);
      await this.#write(part);
      if (length === undefined) this.#socket.write('\r\n');
    }
    if (length === undefined) this.#socket.write('0\r\n\r\n');
    else if (sent < length) throw new PantalaError('invalid-argument', 'the body is shorter than told');
  }

  #write(part: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      const onClose = () => reject(new PantalaError('unavailable', 'the origin closed the connection'));
      this.#socket.once('close', onClose);
      this.#socket.write(part, (error) => {
        this.#socket.off('close', onClose);
        if (error) reject(PantalaError.from(error));
        else resolve();
      });
    });
  }
}

function formatRequest(request: HttpRequest): string {
  const { method, url, headers } = request;
  if (!/^[A-Z][A-Z-]{0,30}$/.test(method))
    throw new PantalaError('invalid-argument', `${JSON.stringify(method)} is no method`);
  let text = `${method} ${url.pathname}${url.search} HTTP/1.1\r\nHost: ${url.host}\r\n`;
  for (let i = 0; i + 1 < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`;
  if (request.body !== undefined) {
    text +=
      request.bodyLength === undefined ? 'Transfer-Encoding: chunked\r\n' : `Content-Length: ${request.bodyLength}\r\n`;
  } else if (method === 'POST' || method === 'PUT' || method === 'PATCH') {
    text += 'Content-Length: 0\r\n';
  }
  return `${text}\r\n`;
}
