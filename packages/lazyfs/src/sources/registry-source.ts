import { type ByteRange, Lru, PantalaError } from '@pantala/base';
import type { HttpResponse, HttpTransport } from '@pantala/oci';
import type { BlobSource, SourceReadOptions, Urgency } from '../contract.ts';
import type { Authorization } from './authorization.ts';
import { readRangeBody } from './range-body.ts';

/** Redirects of one request: registries have one or two, to object storage. */
const MAX_REDIRECTS = 5;
/**
 * Challenges that one read answers. Two would do for a single reader; where many use up the same short-lived token, each
 * may find it spent again.
 */
const MAX_CHALLENGES = 5;
/** Places that redirects led to, and milliseconds that one is used again: signed URLs are good for minutes at least. */
const MAX_KEPT_REDIRECTS = 1024;
const REDIRECT_LIFETIME = 60_000;
/** Answers of a place that was kept which say that it is good no longer. */
const STALE = new Set([400, 401, 403, 404, 410]);

export interface RegistrySourceParts {
  readonly name: string;
  /** Where the registry's API is asked: the registry, or a mirror of it. */
  readonly base: URL;
  readonly repository: string;
  readonly transport: HttpTransport;
  /** For places that redirects lead to. */
  readonly direct: HttpTransport;
  readonly authorization: Authorization;
  /** Whether a 401 of `base` is answered as if it came from the registry; else the registry itself is asked. */
  readonly authThrough: boolean;
  /** Whether the first read of a blob takes much longer than the next: a peer finds others that have it. */
  readonly prepares?: boolean;
  /** Headers for requests to `base`, names in lower case. */
  readonly headers: (urgency: Urgency) => Readonly<Record<string, string>>;
  readonly redirect: { readonly host?: string; readonly scheme?: 'http' | 'https' };
}

/** Blobs by the registry's API (https://github.com/opencontainers/distribution-spec), from itself or a mirror. */
export class RegistrySource implements BlobSource {
  readonly #parts: RegistrySourceParts;
  readonly #places = new Lru<string, { readonly url: URL; readonly until: number }>(MAX_KEPT_REDIRECTS);

  constructor(parts: RegistrySourceParts) {
    this.#parts = parts;
  }

  get name(): string {
    return this.#parts.name;
  }

  async read(blobId: string, range: ByteRange, options: SourceReadOptions): Promise<Uint8Array> {
    const what = `bytes ${range.start} to ${range.end} of blob ${blobId} from ${this.name}`;
    const response = await this.#request(blobId, range, options);
    return readRangeBody(response, range, what, options.progress);
  }

  /** By a read of its first byte: whoever is asked finds out about the blob then, as with any read. */
  async prepare(blobId: string, signal: AbortSignal): Promise<void> {
    if (this.#parts.prepares === true) await this.read(blobId, { start: 0, end: 1 }, { urgency: 'demand', signal });
  }

  async #request(blobId: string, range: ByteRange, { urgency, signal }: SourceReadOptions): Promise<HttpResponse> {
    const wanted = { range: `bytes=${range.start}-${range.end - 1}`, 'accept-encoding': 'identity' };
    const place = this.#places.get(blobId);
    if (place !== undefined && place.until > Date.now()) {
      const response = await this.#follow(place.url, wanted, blobId, signal).catch(() => undefined);
      if (response !== undefined && !STALE.has(response.status) && response.status < 500) return response;
      await response?.[Symbol.asyncDispose]();
    }
    this.#places.delete(blobId);
    const path = `/v2/${this.#parts.repository}/blobs/sha256:${blobId}`;
    return this.#authorized(path, { ...wanted, ...this.#parts.headers(urgency) }, blobId, signal);
  }

  /** With the known authorization, and again with what a 401 asks for. */
  async #authorized(
    path: string,
    headers: Readonly<Record<string, string>>,
    blobId: string,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const { authorization, authThrough, base } = this.#parts;
    if (!authThrough) await authorization.learn(path, signal);
    let sent = await authorization.header(signal);
    for (let round = 0; ; round++) {
      const url = new URL(base.pathname.replace(/\/$/, '') + path, base);
      const response = await this.#follow(url, withAuthorization(headers, sent), blobId, signal);
      if (response.status !== 401 || round === MAX_CHALLENGES) return response;
      const challenge = response.headers['www-authenticate'];
      if (authThrough && challenge === undefined) return response;
      await response[Symbol.asyncDispose]();
      const renewed = authThrough
        ? await authorization.challenged(challenge as string, sent, signal)
        : await authorization.renewed(path, sent, signal);
      if (renewed === undefined) {
        throw new PantalaError('unauthenticated', `${this.name} does not take the credentials that the registry takes`);
      }
      sent = renewed;
    }
  }

  /** Follows redirects: what is behind them gets the range and nothing else. */
  async #follow(
    from: URL,
    headers: Readonly<Record<string, string>>,
    blobId: string,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    const { base, transport, direct } = this.#parts;
    let url = from;
    for (let redirects = 0; ; redirects++) {
      const isBase = url.origin === base.origin;
      const response = await (isBase ? transport : direct).request({
        method: 'GET',
        url,
        headers: { 'user-agent': 'pantala', ...(isBase ? headers : onlyRange(headers)) },
        signal,
      });
      const { location } = response.headers;
      if (![301, 302, 303, 307, 308].includes(response.status) || location === undefined) {
        if (redirects > 0 && response.status < 300) this.#keep(blobId, url);
        return response;
      }
      await response[Symbol.asyncDispose]();
      if (redirects === MAX_REDIRECTS) {
        throw new PantalaError('origin', `${this.name} redirects blob ${blobId} more than ${MAX_REDIRECTS} times`);
      }
      url = this.#redirected(location, url);
    }
  }

  #keep(blobId: string, url: URL): void {
    this.#places.set(blobId, { url, until: Date.now() + REDIRECT_LIFETIME });
  }

  #redirected(location: string, from: URL): URL {
    const url = URL.parse(location, from.href);
    if (url === null || !/^https?:$/.test(url.protocol)) {
      throw new PantalaError('origin', `${this.name} redirects to "${location.slice(0, 200)}", which is no http URL`);
    }
    const { host, scheme } = this.#parts.redirect;
    if (scheme !== undefined) url.protocol = scheme;
    if (host !== undefined) url.host = host;
    url.username = '';
    url.password = '';
    return url;
  }
}

function withAuthorization(
  headers: Readonly<Record<string, string>>,
  authorization: string | undefined,
): Readonly<Record<string, string>> {
  return authorization === undefined ? headers : { ...headers, authorization };
}

function onlyRange(headers: Readonly<Record<string, string>>): Record<string, string> {
  return { range: headers.range ?? '', 'accept-encoding': 'identity' };
}
