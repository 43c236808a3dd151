import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { PantalaError } from '@pantala/base';
import type { Connector } from './connector.ts';
import type { HttpClient, HttpResponse } from './http-client.ts';
import { parseTarget, passedHeaders } from './target.ts';

/** A request that is passed on as it is. */
export interface DirectRequest {
  readonly method: string;
  readonly url: URL;
  /** Names and values in turn, in the order and spelling of the client; hop-by-hop ones are left out here as well. */
  readonly headers: readonly string[];
  readonly body?: AsyncIterable<Uint8Array>;
  readonly signal: AbortSignal;
}

export interface DirectResponse {
  readonly status: number;
  readonly statusText: string;
  /** Names and values in turn, as they came. */
  readonly headers: readonly string[];
  /** As it came: not decompressed. Destroying it ends the request. */
  readonly body: Readable;
}

/** Requests and tunnels that pass through; every one goes through the checks of addresses. */
export class DirectAccess {
  readonly #client: HttpClient;
  readonly #connector: Connector;

  constructor(client: HttpClient, connector: Connector) {
    this.#client = client;
    this.#connector = connector;
  }

  /**
   * Asks once; redirects and errors are the answer.
   *
   * @throws `permission-denied` for an address that must not be reached; `unavailable`, `deadline-exceeded`, `origin`
   */
  async request(request: DirectRequest): Promise<DirectResponse> {
    const { method, headers, body, signal } = request;
    const url = parseTarget(request.url.href);
    if (url.protocol !== 'http:' && url.protocol !== 'https:') {
      throw new PantalaError('unimplemented', `requests to "${url.protocol}" are not passed on; known are http, https`);
    }
    const length = body === undefined ? undefined : bodyLength(headers);
    const response = await this.#client.request(
      {
        method,
        url,
        headers: passedHeaders(headers),
        ...(body === undefined ? {} : { body }),
        ...(length === undefined ? {} : { bodyLength: length }),
      },
      signal,
    );
    const { status, reason, rawHeaders } = response.head;
    // Who expects no body may never read it.
    if (response.left === 0) await response[Symbol.asyncDispose]();
    const bytes = Readable.from(copies(response), { objectMode: false });
    // A stream that is destroyed before its first read does not run the generator, so not its end either.
    bytes.once('close', () => response.cut());
    return { status, statusText: reason, headers: rawHeaders, body: bytes };
  }

  /** A TCP connection for a blind tunnel. @throws as `request` does */
  connect(target: { readonly host: string; readonly port: number; readonly signal: AbortSignal }): Promise<Socket> {
    return this.#connector.tunnel(target.host, target.port, target.signal);
  }
}

/** Streams keep what they were given, so they are given copies. */
async function* copies(response: HttpResponse): AsyncGenerator<Buffer> {
  for (let bytes = await response.read(); bytes !== undefined; bytes = await response.read()) yield Buffer.from(bytes);
}

function bodyLength(headers: readonly string[]): number | undefined {
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if ((headers[i] as string).toLowerCase() !== 'content-length') continue;
    const value = headers[i + 1] as string;
    return /^\d{1,15}$/.test(value) ? Number(value) : undefined;
  }
  return undefined;
}
