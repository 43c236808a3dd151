import type { OriginRequest } from '@pantala/transfer';

/** Callers of one task whose credentials are kept at once: a few that read it together, not all that ever did. */
export const MAX_CREDENTIALS = 8;

/** A URL and headers that some caller asks with. */
export type Credentials = Pick<OriginRequest, 'url' | 'headers'>;

/**
 * As whom the origin of one task is asked: the caller that came last, and in the stead of one that the origin has
 * refused, another who asked for the same. So an expired token is no hindrance while somebody has a good one.
 */
export class CallerCredentials {
  #newestFirst: readonly Credentials[];
  readonly #refused = new WeakSet<Credentials>();

  constructor(first: Credentials) {
    this.#newestFirst = [first];
  }

  /** Those to ask with now; the newest when all were refused. */
  get current(): Credentials {
    const [newest] = this.#newestFirst;
    return this.#newestFirst.find((credentials) => !this.#refused.has(credentials)) ?? (newest as Credentials);
  }

  /** Another caller has come, or the same one again. */
  add(credentials: Credentials): void {
    const others = this.#newestFirst.filter((known) => !areEqual(known, credentials));
    this.#newestFirst = [credentials, ...others].slice(0, MAX_CREDENTIALS);
  }

  /** The origin refused them. True when others may be tried. */
  refuse(credentials: Credentials): boolean {
    this.#refused.add(credentials);
    return !this.#refused.has(this.current);
  }
}

function areEqual(one: Credentials, other: Credentials): boolean {
  if (one.url !== other.url) return false;
  const names = Object.keys(one.headers ?? {});
  if (names.length !== Object.keys(other.headers ?? {}).length) return false;
  return names.every((name) => one.headers?.[name] === other.headers?.[name]);
}
