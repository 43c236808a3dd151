import type { ByteRange } from '@pantala/base';

/** What to ask of an origin, and as whom. */
export interface OriginRequest {
  readonly url: string;
  /** Sent as they are (names in lower case), less hop-by-hop ones; credentials never follow to another host. */
  readonly headers: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** What an origin says of a resource before its bytes are asked for. */
export interface OriginStat {
  /**
   * Undefined where the origin does not say (chunked without length), or encodes its answers although it was not asked
   * to: `headers` name the coding then, and only all of it, fetched at once, is one content.
   */
  readonly contentLength: number | undefined;
  /** False when it answers 200 to a range. */
  readonly acceptsRanges: boolean;
  /** As a 200 for the whole resource would have them, names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
}

/** A body on its way. Exactly the bytes of `range`, or an error. */
export interface OriginBody extends AsyncDisposable {
  readonly range: ByteRange;
  readonly contentLength: number | undefined;
  readonly headers: Readonly<Record<string, string>>;
  /**
   * Chunks in order, of whatever size they arrive in. A chunk is the consumer's until it asks for the next one.
   *
   * @throws `origin` for a body shorter or longer than announced; `unavailable` when the connection breaks
   */
  readonly chunks: AsyncIterable<Buffer>;
}

/** What an origin says of a resource, with bytes that it sends at once. */
export interface OriginBeginning {
  readonly stat: OriginStat;
  /** The bytes that were asked for as far as the resource has them; undefined where there are none to be had so. */
  readonly body: OriginBody | undefined;
}

/** Where bytes come from when no peer has them. Every request goes through the same address checks. */
export interface Origin extends AsyncDisposable {
  /**
   * Asks what the resource is without downloading it (`Range: bytes=0-0`: signed URLs allow only GET).
   *
   * @throws `origin` with details `status` (and headers of the answer as `OriginError.headers`) for 4xx and 5xx;
   *   `permission-denied` for an address that must not be reached; `unavailable`, `deadline-exceeded`
   */
  stat(request: OriginRequest): Promise<OriginStat>;
  /**
   * `stat` and `fetch` in one request, for who has nobody else to ask. The range may go beyond the end.
   *
   * @param request.range all of it when undefined
   * @throws as both
   */
  begin(request: OriginRequest & { readonly range?: ByteRange }): Promise<OriginBeginning>;
  /**
   * Fetches a range (all of it when undefined). Where the origin ignores ranges, the bytes before `range.start`
   * are read and dropped here.
   */
  fetch(request: OriginRequest & { readonly range?: ByteRange }): Promise<OriginBody>;
}
