import { Backoff, PantalaError, sleep } from '@pantala/base';
import { Authorizer } from './authorizer.ts';
import { anonymous, type CredentialSource } from './credentials.ts';
import { isRepository } from './reference.ts';
import { refusal } from './refusal.ts';
import { registryHost } from './registry-host.ts';
import { Repository } from './repository.ts';
import { type BodySource, type HttpResponse, type HttpTransport, NodeTransport } from './transport.ts';

export interface RegistryOptions {
  readonly transport?: HttpTransport;
  readonly credentials?: CredentialSource;
  /** Attempts in all for what can be repeated: no answer, 5xx, 429. Default 4. */
  readonly attempts?: number;
  /** Milliseconds that a 429 or 503 may make us wait in all for one request. Default 60,000. */
  readonly maxWait?: number;
  /** Milliseconds of the first pause between attempts. Default 200. */
  readonly initialPause?: number;
}

/** Redirects of one request. Registries have one or two, to object storage. */
const MAX_REDIRECTS = 10;
/** Milliseconds that no pause between attempts exceeds. */
const LONGEST_PAUSE = 5_000;

export interface RegistryRequest {
  readonly method: string;
  /** Path below the registry, or a URL that it gave us. */
  readonly target: string | URL;
  /** What the token must allow: `repository:<name>:<actions>`, several with a space. */
  readonly scope: string;
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: BodySource;
  /** Whether it may be sent again after a failure (default: everything but POST and PATCH). */
  readonly repeatable?: boolean;
  readonly signal: AbortSignal | undefined;
}

/** The `https` address of a reference's registry; plain HTTP on this machine itself, and where the caller says so. */
export function registryUrl(domain: string, options: { readonly plainHttp?: boolean } = {}): URL {
  const host = registryHost(domain);
  const url = URL.parse(`${options.plainHttp === true || isLoopback(host) ? 'http' : 'https'}://${host}/`);
  if (url === null) throw new PantalaError('invalid-argument', `"${domain}" is no host[:port]`);
  return url;
}

/** As Docker takes it. */
function isLoopback(host: string): boolean {
  const name = host.replace(/:\d+$/, '');
  return name === 'localhost' || name === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(name);
}

/** A client of one registry (https://github.com/opencontainers/distribution-spec). */
export class Registry {
  readonly url: URL;
  readonly #transport: HttpTransport;
  readonly #authorizer: Authorizer;
  readonly #attempts: number;
  readonly #maxWait: number;
  readonly #initialPause: number;

  constructor(url: URL | string, options: RegistryOptions = {}) {
    this.url = new URL(url);
    this.#transport = options.transport ?? new NodeTransport();
    this.#attempts = options.attempts ?? 4;
    this.#maxWait = options.maxWait ?? 60_000;
    this.#initialPause = options.initialPause ?? 200;
    const credentials = options.credentials ?? anonymous;
    this.#authorizer = new Authorizer({ registry: this.url, transport: this.#transport, credentials });
  }

  /** @throws `invalid-argument` for a name that is none */
  repository(name: string): Repository {
    if (!isRepository(name)) throw new PantalaError('invalid-argument', `"${name.slice(0, 200)}" is no repository`);
    return new Repository(this, name);
  }

  /** Whether this is a registry and the credentials are good. @throws as `request` */
  async ping(signal?: AbortSignal): Promise<void> {
    await using response = await this.request({ method: 'GET', target: '/v2/', scope: '', signal });
    if (response.status !== 200) throw await refusal(response, `${this.url.host}`);
  }

  /**
   * Sends a request with what the registry wants for authentication, follows redirects of GET and HEAD (credentials
   * stay behind), and repeats what failed for a passing reason. Statuses that are left are the caller's.
   *
   * @throws `unauthenticated`, `unavailable`, `deadline-exceeded`, `resource-exhausted` when it would have to wait too long
   */
  async request(given: RegistryRequest): Promise<HttpResponse> {
    const { method, signal } = given;
    const repeatable = given.repeatable ?? (method !== 'POST' && method !== 'PATCH');
    const backoff = new Backoff({ initial: this.#initialPause, limit: LONGEST_PAUSE });
    let waited = 0;
    for (let attempt = 1; ; attempt++) {
      const last = !repeatable || attempt >= this.#attempts;
      let pause = backoff.next();
      try {
        const response = await this.#authorized(given);
        // A request that was answered 429 was not carried out: it may be sent again whatever it was.
        const limited = response.status === 429;
        const passing = limited || response.status >= 500;
        if (!passing || response.status === 501 || (limited ? attempt >= this.#attempts : last)) return response;
        const told = retryAfter(response.headers['retry-after']);
        if (told !== undefined && waited + told > this.#maxWait) {
          throw await refusal(response, `${method} ${this.#describe(given.target)}`);
        }
        pause = told ?? pause;
        await response[Symbol.asyncDispose]();
      } catch (thrown) {
        const error = PantalaError.from(thrown);
        if (last || error.code !== 'unavailable' || typeof error.details.status === 'number') throw error;
      }
      waited += pause;
      await sleep(pause, signal);
    }
  }

  /** One attempt: with the known authorization, and once more with the one that a 401 asks for. */
  async #authorized(given: RegistryRequest): Promise<HttpResponse> {
    const known = await this.#authorizer.header(given.scope, given.signal);
    let sent = known;
    for (let round = 0; ; round++) {
      const response = await this.#following(given, sent);
      if (response.status !== 401 || round === 2) return response;
      const challenge = response.headers['www-authenticate'];
      if (challenge === undefined) return response;
      await response[Symbol.asyncDispose]();
      sent = await this.#authorizer.challenged(challenge, given.scope, sent, given.signal);
    }
  }

  async #following(given: RegistryRequest, authorization: string | undefined): Promise<HttpResponse> {
    const { method, body, signal } = given;
    let url = typeof given.target === 'string' ? new URL(given.target, this.url) : given.target;
    for (let redirects = 0; ; redirects++) {
      const ours = url.origin === this.url.origin;
      const response = await this.#transport.request({
        method,
        url,
        headers: {
          'user-agent': 'pantala',
          ...given.headers,
          ...(ours && authorization !== undefined ? { authorization } : {}),
        },
        ...(body === undefined ? {} : { body }),
        signal,
      });
      const { location } = response.headers;
      const redirected = [301, 302, 303, 307, 308].includes(response.status) && location !== undefined;
      if (!redirected || (method !== 'GET' && method !== 'HEAD')) return response;
      await response[Symbol.asyncDispose]();
      if (redirects === MAX_REDIRECTS) {
        throw new PantalaError('origin', `${this.#describe(given.target)} redirects more than ${MAX_REDIRECTS} times`);
      }
      url = redirectTarget(location, url);
    }
  }

  #describe(target: string | URL): string {
    const url = typeof target === 'string' ? new URL(target, this.url) : target;
    return `${url.host}${url.pathname}`;
  }
}

function redirectTarget(location: string, from: URL): URL {
  const url = URL.parse(location, from.href);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new PantalaError('origin', `${from.host} redirects to "${location.slice(0, 200)}", which is no http URL`);
  }
  url.username = '';
  url.password = '';
  return url;
}

/** Milliseconds that `Retry-After` says: seconds or a date (RFC 9110 §10.2.3). */
function retryAfter(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (/^\s*\d{1,9}\s*$/.test(value)) return Number(value) * 1000;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - Date.now());
}
