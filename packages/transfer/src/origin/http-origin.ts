import { type ByteRange, Lru, lengthOf, PantalaError, parseContentRange, type RateLimiter } from '@pantala/base';
import type { Origin, OriginBeginning, OriginBody, OriginRequest, OriginStat } from './contract.ts';
import { OriginError, withoutSecrets } from './errors.ts';
import type { HttpClient, HttpResponse } from './http-client.ts';
import { type CompiledOriginOptions, MAX_RANGELESS } from './options.ts';
import { OpenBody } from './origin-body.ts';
import { Redirects } from './redirects.ts';
import type { ResponseHead } from './response-head.ts';
import { withRetries } from './retries.ts';
import { contentHeaders, parseTarget } from './target.ts';

/** http and https. Bodies are asked for without a content coding, and every answer is checked against the question. */
export class HttpOrigin implements Origin {
  readonly #client: HttpClient;
  readonly #options: CompiledOriginOptions;
  readonly #limiter: RateLimiter;
  readonly #redirects: Redirects;
  /** URLs that answered 200 to a range. */
  readonly #rangeless = new Lru<string, true>(MAX_RANGELESS);

  /** @param limiter every byte of a body is paid here before it is passed on */
  constructor(client: HttpClient, options: CompiledOriginOptions, limiter: RateLimiter) {
    this.#client = client;
    this.#options = options;
    this.#limiter = limiter;
    this.#redirects = new Redirects(options.redirectLifetime);
  }

  async stat(request: OriginRequest): Promise<OriginStat> {
    await using response = await this.#ask(request, { start: 0, end: 1 });
    const { status, headers } = response.head;
    if (status === 206) return this.#statOfPart(request, response.head);
    if (status === 416) {
      if (/^\s*bytes\s+\*\/0\s*$/i.test(headers['content-range'] ?? '')) return statOf(0, true, headers);
      await using whole = await this.#ask(request, undefined);
      this.#rangeless.set(request.url, true);
      return statOfWhole(request.url, whole.head);
    }
    const stat = statOfWhole(request.url, response.head);
    this.#rangeless.set(request.url, true);
    return stat;
  }

  async begin(request: OriginRequest & { readonly range?: ByteRange }): Promise<OriginBeginning> {
    const range = request.range ?? { start: 0, end: Number.POSITIVE_INFINITY };
    const response = await this.#ask(request, range);
    try {
      const { head } = response;
      const total = totalOf(request.url, head);
      const cut = { start: range.start, end: Math.min(range.end, total ?? 0) };
      if (total !== undefined && cut.start < cut.end && (!isEncoded(head) || isFixed(head))) {
        const body = this.#bodyOf({ ...request, range: cut }, response);
        return { stat: statOf(total, head.status === 206, head.headers), body };
      }
    } catch {
      // An answer that does not fit the question: what it is about is found below.
    }
    await response[Symbol.asyncDispose]();
    return { stat: await this.stat(request), body: undefined };
  }

  async fetch(request: OriginRequest & { readonly range?: ByteRange }): Promise<OriginBody> {
    const { range } = request;
    if (range !== undefined && !(range.start >= 0 && range.start < range.end)) {
      throw new PantalaError('invalid-argument', `bytes ${range.start} to ${range.end} are no range`);
    }
    let response = await this.#ask(request, range);
    if (response.head.status === 416) {
      const { headers } = response.head;
      await response[Symbol.asyncDispose]();
      // It has the bytes, says so, and refuses all the same: ranges are what it does not understand.
      const total = /^\s*bytes\s+\*\/(\d{1,15})\s*$/i.exec(headers['content-range'] ?? '')?.[1];
      if (range === undefined || Number(total ?? 0) < range.end)
        throw new OriginError(parseTarget(request.url), 416, headers);
      this.#rangeless.set(request.url, true);
      response = await this.#ask(request, range);
    }
    try {
      return this.#bodyOf(request, response);
    } catch (error) {
      await response[Symbol.asyncDispose]();
      throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#client[Symbol.asyncDispose]();
  }

  /** An answer with 200 or, where a range was asked for, 206 or 416; everything else is an error. */
  async #ask(request: OriginRequest, range: ByteRange | undefined): Promise<HttpResponse> {
    const asked = range !== undefined && this.#rangeless.get(request.url) === undefined;
    const headers: Record<string, string> = {
      'user-agent': this.#options.userAgent,
      accept: '*/*',
      ...this.#options.requestHeaders,
      ...contentHeaders(request.headers),
      'accept-encoding': 'identity',
      ...(asked ? { range: `bytes=${range.start}-${Number.isFinite(range.end) ? range.end - 1 : ''}` } : {}),
    };
    const { response, url } = await this.#redirects.follow({ url: parseTarget(request.url), headers }, (hop) =>
      withRetries(this.#options, request.signal, () =>
        this.#client.request(
          { method: 'GET', url: hop.url, headers: Object.entries(hop.headers).flat() },
          request.signal,
        ),
      ),
    );
    const { status } = response.head;
    if (status === 200 || (asked && (status === 206 || status === 416))) return response;
    await response[Symbol.asyncDispose]();
    throw new OriginError(url, status, response.head.headers);
  }

  #statOfPart(request: OriginRequest, head: ResponseHead): OriginStat {
    const part = parseContentRange(head.headers['content-range'] ?? '');
    if (part === undefined || part.range.start !== 0) throw wrongRange(request.url, head, { start: 0, end: 1 });
    // What is stored with a content coding has parts like anything else. Who encodes each answer anew has none.
    if (!isEncoded(head) || isFixed(head)) return statOf(part.contentLength, true, head.headers);
    this.#rangeless.set(request.url, true);
    return statOf(undefined, false, head.headers);
  }

  #bodyOf(request: OriginRequest & { readonly range?: ByteRange }, response: HttpResponse): OriginBody {
    const { url, range, signal } = request;
    const { head } = response;
    const told = head.headers['content-length'];
    const open = (whole: ByteRange, contentLength: number | undefined, skip: number) =>
      new OpenBody({ response, range: whole, contentLength, skip, limiter: this.#limiter, signal });
    if (range === undefined) {
      const contentLength = lengthOfWhole(url, head);
      return open({ start: 0, end: contentLength ?? Number.POSITIVE_INFINITY }, contentLength, 0);
    }
    // Parts of an encoded body cannot be told from parts of another encoding of the same content.
    if (isEncoded(head) && !isFixed(head)) {
      const coding = head.headers['content-encoding'];
      throw new PantalaError(
        'data-loss',
        `${safeUrl(url)} answered with the content coding ${coding}, which was not asked for and which it did not use before: ask again, and all of it is fetched as it is sent`,
        { details: { changed: true } },
      );
    }
    if (head.status === 206) {
      const part = parseContentRange(head.headers['content-range'] ?? '');
      const fits = part?.range.start === range.start && part.range.end === range.end;
      if (!fits || (told !== undefined && Number(told) !== lengthOf(range))) throw wrongRange(url, head, range);
      return open(range, part.contentLength, 0);
    }
    this.#rangeless.set(url, true);
    const contentLength = lengthOfWhole(url, head);
    if (contentLength !== undefined && contentLength < range.end) {
      throw new PantalaError('origin', `${safeUrl(url)} has ${contentLength} bytes; ${range.end} were expected`);
    }
    return open(range, contentLength, range.start);
  }
}

/** Headers that tell of this answer and not of the whole resource. */
const OF_THE_PART: readonly string[] = [
  'content-range',
  'content-length',
  'transfer-encoding',
  'connection',
  'keep-alive',
];

function statOf(
  contentLength: number | undefined,
  acceptsRanges: boolean,
  answered: Readonly<Record<string, string>>,
): OriginStat {
  const headers: Record<string, string> = { ...answered };
  for (const name of OF_THE_PART) delete headers[name];
  if (contentLength !== undefined) headers['content-length'] = String(contentLength);
  return { contentLength, acceptsRanges, headers };
}

/** Of an answer with 200 to a range. Another answer may be encoded to another length, so such a length says nothing. */
function statOfWhole(url: string, head: ResponseHead): OriginStat {
  const contentLength = lengthOfWhole(url, head);
  return statOf(isEncoded(head) ? undefined : contentLength, false, head.headers);
}

function lengthOfWhole(url: string, head: ResponseHead): number | undefined {
  if (head.status !== 200) throw wrongRange(url, head, undefined);
  const told = head.headers['content-length'];
  // A length beside a transfer coding means nothing (RFC 9112 §6.3).
  return told === undefined || head.headers['transfer-encoding'] !== undefined ? undefined : Number(told.split(',')[0]);
}

/** Length of the whole resource, as an answer to a range tells it. */
function totalOf(url: string, head: ResponseHead): number | undefined {
  if (head.status === 206) return parseContentRange(head.headers['content-range'] ?? '')?.contentLength;
  return head.status === 200 ? lengthOfWhole(url, head) : undefined;
}

function isEncoded(head: ResponseHead): boolean {
  const coding = (head.headers['content-encoding'] ?? 'identity').trim().toLowerCase();
  return coding !== '' && coding !== 'identity';
}

/** Whether an encoded part is one of stored bytes: of the length that it tells, under a strong tag (RFC 9110 §8.8.3). */
function isFixed({ status, headers }: ResponseHead): boolean {
  const part = parseContentRange(headers['content-range'] ?? '');
  if (status !== 206 || part === undefined || headers.etag?.startsWith('"') !== true) return false;
  return Number(headers['content-length']) === lengthOf(part.range);
}

function wrongRange(url: string, head: ResponseHead, range: ByteRange | undefined): PantalaError {
  const asked = range === undefined ? 'everything' : `bytes ${range.start}-${range.end - 1}`;
  const { 'content-range': part = 'none', 'content-length': length = 'none' } = head.headers;
  return new PantalaError(
    'origin',
    `${safeUrl(url)} was asked for ${asked} and answered ${head.status} with Content-Range ${part.slice(0, 100)}, Content-Length ${length.slice(0, 30)}`,
  );
}

function safeUrl(url: string): string {
  return withoutSecrets(parseTarget(url));
}
