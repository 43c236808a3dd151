import type { RateLimiter } from '@pantala/base';

/** An address that a program of ours listens on. */
export interface ListenerAddress {
  readonly host: string;
  readonly port: number;
}

/** Which addresses may be reached. Link-local ones and our own listeners never may. */
export interface AddressRules {
  /** CIDR blocks (`10.0.0.0/8`, `fd00::/8`) or single addresses. When given, nothing else may be reached. */
  readonly allow?: readonly string[];
  /** CIDR blocks or single addresses that may not be reached, also within `allow`. */
  readonly deny?: readonly string[];
  /** Asked at each connect, as ports are known only once they are bound. A wildcard host means every own address. */
  readonly ownListeners?: () => readonly ListenerAddress[];
}

/** How certificates of some origins are checked. The first rule that matches counts. */
export interface OriginTrust {
  /** Regular expression, found anywhere in `host[:port]` (the port as the URL has it). Default: every origin. */
  readonly hosts?: string;
  /** Certificates are not checked. Default false. */
  readonly insecure?: boolean;
  /** Further authorities in PEM, beside the system's. */
  readonly authorities?: readonly string[];
}

/** Options of origins. Times in milliseconds, rates in bytes a second. */
export interface OriginOptions {
  readonly addresses?: AddressRules;
  readonly trust?: readonly OriginTrust[];
  /** Headers added to each request that lacks them (`backend.requestHeader`), names in lower case. */
  readonly requestHeaders?: Readonly<Record<string, string>>;
  readonly userAgent?: string;
  /** Bytes a second from all origins together. Default: no limit. */
  readonly rate?: number;
  /** A limit that holds for origins and parents together, beside `rate`. */
  readonly limiter?: RateLimiter;
  /** Requests at once to one scheme, host and port. */
  readonly requestsPerHost?: number;
  readonly connectTimeout?: number;
  /** From the request to the end of the answer's head. */
  readonly headTimeout?: number;
  /** An answer that brings less than MIN_PROGRESS bytes in this time is given up. */
  readonly silenceTimeout?: number;
  /** A connection without a request is closed after this. */
  readonly idleTimeout?: number;
  /** Attempts for 429, 5xx and broken connections, before the first byte of an answer. */
  readonly attempts?: number;
  /** Longest pause that a `Retry-After` may ask for. */
  readonly maxRetryAfter?: number;
  /** How long the target of a 307 is used again; 0 for never. */
  readonly redirectLifetime?: number;
}

/** More help no origin; a registry's limits per address are about here. */
export const REQUESTS_PER_HOST = 64;
export const CONNECT_TIMEOUT = 5_000;
/** Object stores may take long to find the first byte. */
export const HEAD_TIMEOUT = 60_000;
export const SILENCE_TIMEOUT = 30_000;
/** Bytes in one SILENCE_TIMEOUT: an origin below 0.5 KB/s will not end a layer in a day. */
export const MIN_PROGRESS = 16 * 1024;
/** Below what common servers close idle connections after, but for those of 5 s, which the retry covers. */
export const IDLE_TIMEOUT = 30_000;
/** Idle connections kept to one host. */
export const MAX_IDLE_PER_HOST = 16;
export const ATTEMPTS = 3;
export const MAX_RETRY_AFTER = 30_000;
/** Upstream's cacheTemporaryRedirectTTL and its number of entries. */
export const REDIRECT_LIFETIME = 600_000;
export const MAX_CACHED_REDIRECTS = 1000;
/** Browsers and curl stop between 10 and 50; a registry needs two. */
export const MAX_REDIRECTS = 10;
/** Origins remembered to ignore ranges. */
export const MAX_RANGELESS = 1000;

export type CompiledOriginOptions = Required<Omit<OriginOptions, 'limiter'>> & Pick<OriginOptions, 'limiter'>;

export function compileOriginOptions(options: OriginOptions): CompiledOriginOptions {
  return {
    addresses: options.addresses ?? {},
    trust: options.trust ?? [],
    requestHeaders: options.requestHeaders ?? {},
    userAgent: options.userAgent ?? 'pantala',
    rate: options.rate ?? Number.POSITIVE_INFINITY,
    requestsPerHost: options.requestsPerHost ?? REQUESTS_PER_HOST,
    connectTimeout: options.connectTimeout ?? CONNECT_TIMEOUT,
    headTimeout: options.headTimeout ?? HEAD_TIMEOUT,
    silenceTimeout: options.silenceTimeout ?? SILENCE_TIMEOUT,
    idleTimeout: options.idleTimeout ?? IDLE_TIMEOUT,
    attempts: options.attempts ?? ATTEMPTS,
    maxRetryAfter: options.maxRetryAfter ?? MAX_RETRY_AFTER,
    redirectLifetime: options.redirectLifetime ?? REDIRECT_LIFETIME,
    ...(options.limiter === undefined ? {} : { limiter: options.limiter }),
  };
}
