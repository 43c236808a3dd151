import { Lru, monotonicNow, PantalaError, sha256Hex } from '@pantala/base';
import { OriginError, withoutSecrets } from './errors.ts';
import type { HttpResponse } from './http-client.ts';
import { MAX_CACHED_REDIRECTS, MAX_REDIRECTS } from './options.ts';
import { CREDENTIAL_HEADERS, parseTarget, withoutCredentials } from './target.ts';

/** Where a request is going, and with which headers (names in lower case). */
export interface Hop {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
}

interface CachedTarget {
  readonly url: string;
  readonly until: number;
}

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** What a signed URL answers when its time is over. */
const EXPIRED: ReadonlySet<number> = new Set([401, 403, 404, 410]);

/** Follows redirects and remembers where temporary ones led. */
export class Redirects {
  readonly #lifetime: number;
  readonly #targets = new Lru<string, CachedTarget>(MAX_CACHED_REDIRECTS);

  /** @param lifetime milliseconds for which the target of a 307 is used again */
  constructor(lifetime: number) {
    this.#lifetime = lifetime;
  }

  /**
   * Asks, and goes where redirects lead. Credentials stay with the scheme, host and port that they were given for.
   *
   * @throws `origin` for redirects without end or without a target; what `ask` throws
   */
  async follow(start: Hop, ask: (hop: Hop) => Promise<HttpResponse>): Promise<{ response: HttpResponse; url: URL }> {
    const key = keyOf(start);
    const cached = this.#targets.get(key);
    if (cached !== undefined && cached.until > monotonicNow()) {
      const url = new URL(cached.url);
      const response = await ask({ url, headers: withoutCredentials(start.headers) });
      const { status } = response.head;
      if (!EXPIRED.has(status) && !REDIRECTS.has(status)) return { response, url };
      await response[Symbol.asyncDispose]();
    }
    this.#targets.delete(key);
    return await this.#walk(start, key, ask);
  }

  async #walk(
    start: Hop,
    key: string,
    ask: (hop: Hop) => Promise<HttpResponse>,
  ): Promise<{ response: HttpResponse; url: URL }> {
    let hop = start;
    for (let redirects = 0; ; redirects++) {
      const response = await ask(hop);
      const { status, headers } = response.head;
      if (!REDIRECTS.has(status)) {
        return { response, url: hop.url };
      }
      await response[Symbol.asyncDispose]();
      if (redirects === MAX_REDIRECTS) {
        throw new PantalaError('origin', `${withoutSecrets(start.url)} redirects more than ${MAX_REDIRECTS} times`);
      }
      const next = nextHop(hop, status, headers);
      if (redirects === 0 && status === 307) this.#remember(key, start.url, next.url);
      else this.#targets.delete(key);
      hop = next;
    }
  }

  /** Only a target elsewhere spares a request to the original host. */
  #remember(key: string, from: URL, to: URL): void {
    if (this.#lifetime === 0 || from.origin === to.origin) return;
    this.#targets.set(key, { url: to.href, until: monotonicNow() + this.#lifetime });
  }
}

/** A target was given to these credentials, and is used for nobody else's. */
function keyOf(hop: Hop): string {
  const credentials = Object.entries(hop.headers).filter(([name]) => CREDENTIAL_HEADERS.has(name));
  return sha256Hex(JSON.stringify([hop.url.href, credentials.toSorted(([a], [b]) => (a < b ? -1 : 1))]));
}

function nextHop(hop: Hop, status: number, headers: Readonly<Record<string, string>>): Hop {
  const { location } = headers;
  if (location === undefined) throw new OriginError(hop.url, status, headers);
  let url: URL;
  try {
    url = parseTarget(location, hop.url);
  } catch (error) {
    const reason = PantalaError.from(error).message;
    throw new PantalaError('origin', `${withoutSecrets(hop.url)} redirects to a bad URL: ${reason}`, { cause: error });
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new PantalaError('origin', `${withoutSecrets(hop.url)} redirects to the scheme ${url.protocol}`);
  }
  return { url, headers: url.origin === hop.url.origin ? hop.headers : withoutCredentials(hop.headers) };
}
