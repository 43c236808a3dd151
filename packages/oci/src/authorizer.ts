import { Lru, PantalaError, SingleFlight } from '@pantala/base';
import { type Challenge, parseChallenges } from './challenge.ts';
import type { CredentialSource, Credentials } from './credentials.ts';
import { readAll, refusal } from './refusal.ts';
import type { HttpTransport } from './transport.ts';

/** Tokens kept: one for each repository and action that is in use. */
const MAX_TOKENS = 1024;
/** Bytes of a token server's answer. */
const MAX_TOKEN_ANSWER = 1024 * 1024;
/** Seconds that a token is good for when its server does not say (distribution's token specification). */
const DEFAULT_LIFETIME = 60;
/** Seconds before its end that a token is no longer used, so that it does not end on the way. */
const MARGIN = 10;
const CLIENT_ID = 'pantala';

interface Token {
  readonly value: string;
  /** Milliseconds since the epoch. */
  readonly usableUntil: number;
}

export interface AuthorizerOptions {
  /** `scheme://host[:port]` of the registry. */
  readonly registry: URL;
  readonly transport: HttpTransport;
  readonly credentials: CredentialSource;
}

/** Finds the `Authorization` that a registry wants, and remembers it by repository and action. */
export class Authorizer {
  readonly #options: AuthorizerOptions;
  readonly #tokens = new Lru<string, Token>(MAX_TOKENS);
  readonly #flights = new SingleFlight<string, Token>();
  /** What the registry asked for last, by scope: the next request brings it along. */
  readonly #challenges = new Lru<string, Challenge>(MAX_TOKENS);

  constructor(options: AuthorizerOptions) {
    this.#options = options;
  }

  /** The header for a request in `scope`, as far as it is known without asking; undefined: try without. */
  async header(scope: string, signal: AbortSignal | undefined): Promise<string | undefined> {
    const challenge = this.#challenges.get(scope);
    return challenge === undefined ? undefined : this.#answer(challenge, scope, signal);
  }

  /**
   * Learns from a 401 and answers its challenge.
   *
   * @param rejected the header that was not good enough
   * @throws `unauthenticated` when there is nothing (else) to try
   */
  async challenged(
    wwwAuthenticate: string | undefined,
    scope: string,
    rejected: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const challenges = parseChallenges(wwwAuthenticate ?? '');
    const challenge =
      challenges.find(({ scheme }) => scheme === 'bearer') ?? challenges.find(({ scheme }) => scheme === 'basic');
    if (challenge === undefined) {
      throw new PantalaError(
        'unauthenticated',
        `${this.#host} wants an authentication that is neither Bearer nor Basic`,
      );
    }
    this.#challenges.set(scope, challenge);
    const key = tokenKey(challenge, scope);
    // Requests that were sent with the same old token come one after the other: the first has fetched a new one.
    if (rejected === `Bearer ${this.#tokens.get(key)?.value}`) this.#tokens.delete(key);
    const header = await this.#answer(challenge, scope, signal);
    if (header === undefined || header === rejected) {
      const reason =
        rejected === undefined ? 'there are no credentials for it' : 'it does not accept these credentials';
      throw new PantalaError(
        'unauthenticated',
        `${this.#host} asks who you are and ${reason}; log in to it first, as with docker login ${this.#host}`,
      );
    }
    return header;
  }

  get #host(): string {
    return this.#options.registry.host;
  }

  async #answer(challenge: Challenge, scope: string, signal: AbortSignal | undefined): Promise<string | undefined> {
    const credentials = await this.#options.credentials(this.#host);
    if (credentials?.kind === 'registry') return `Bearer ${credentials.token}`;
    if (challenge.scheme === 'basic') return credentials?.kind === 'password' ? basic(credentials) : undefined;
    const key = tokenKey(challenge, scope);
    const kept = this.#tokens.get(key);
    if (kept !== undefined && kept.usableUntil > Date.now()) return `Bearer ${kept.value}`;
    const token = await this.#flights.run(key, signal, (flight) =>
      this.#fetchToken(challenge, scope, credentials, flight),
    );
    this.#tokens.set(key, token);
    return `Bearer ${token.value}`;
  }

  /** https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/ */
  async #fetchToken(
    challenge: Challenge,
    scope: string,
    credentials: Credentials | undefined,
    signal: AbortSignal,
  ): Promise<Token> {
    const realm = this.#realm(challenge);
    const scopes = scopesOf(challenge, scope);
    const service = challenge.parameters.get('service');
    const asked = new URLSearchParams(service === undefined ? {} : { service });
    const { transport } = this.#options;
    if (credentials?.kind === 'identity') {
      asked.set('grant_type', 'refresh_token');
      asked.set('client_id', CLIENT_ID);
      asked.set('scope', scopes.join(' '));
      asked.set('refresh_token', credentials.token);
      const body = Buffer.from(asked.toString());
      const headers = {
        'content-type': 'application/x-www-form-urlencoded',
        'content-length': String(body.length),
      };
      return tokenOf(
        await transport.request({ method: 'POST', url: realm, headers, body: () => [body], signal }),
        realm,
      );
    }
    for (const one of scopes) asked.append('scope', one);
    const url = new URL(realm);
    for (const [name, value] of asked) url.searchParams.append(name, value);
    const headers: Record<string, string> = { accept: 'application/json' };
    if (credentials?.kind === 'password') {
      url.searchParams.set('account', credentials.username);
      headers.authorization = basic(credentials);
    }
    return tokenOf(await transport.request({ method: 'GET', url, headers, signal }), realm);
  }

  /** The token server's URL. Credentials go there, so it must not be less safe than the registry. */
  #realm(challenge: Challenge): URL {
    const text = challenge.parameters.get('realm') ?? '';
    const realm = URL.parse(text);
    const { registry } = this.#options;
    if (realm === null || !/^https?:$/.test(realm.protocol)) {
      throw new PantalaError(
        'unauthenticated',
        `${this.#host} names "${text.slice(0, 200)}" as its token server, which is no URL`,
      );
    }
    if (registry.protocol === 'https:' && realm.protocol !== 'https:') {
      throw new PantalaError('unauthenticated', `${this.#host} names a token server without TLS (${realm.host})`);
    }
    return realm;
  }
}

/** What the registry asked for, and what the request needs besides (a registry may name less than a mount needs). */
function scopesOf(challenge: Challenge, scope: string): string[] {
  const named = challenge.parameters.get('scope')?.split(' ') ?? [];
  return [...new Set([...named, ...scope.split(' ')].filter((one) => one !== ''))];
}

function tokenKey(challenge: Challenge, scope: string): string {
  const { parameters } = challenge;
  return [parameters.get('realm'), parameters.get('service'), ...scopesOf(challenge, scope)].join('\n');
}

async function tokenOf(response: Awaited<ReturnType<HttpTransport['request']>>, realm: URL): Promise<Token> {
  if (response.status !== 200) throw await refusal(response, `token from ${realm.host}`);
  const text = (await readAll(response, MAX_TOKEN_ANSWER, `the answer of ${realm.host}`)).toString();
  const answer = parseAnswer(text);
  const value = answer.get('token') ?? answer.get('access_token');
  if (typeof value !== 'string' || value === '' || /[^\x21-\x7e]/.test(value)) {
    throw new PantalaError('unauthenticated', `${realm.host} answered without a token`);
  }
  const lifetime = Number(answer.get('expires_in') ?? DEFAULT_LIFETIME);
  // The server's clock may differ from ours: what counts is how long it says, from now.
  const seconds = Number.isFinite(lifetime) && lifetime > 0 ? lifetime : DEFAULT_LIFETIME;
  return { value, usableUntil: Date.now() + Math.max(0, seconds - MARGIN) * 1000 };
}

function parseAnswer(text: string): ReadonlyMap<string, unknown> {
  try {
    const document: unknown = JSON.parse(text);
    return new Map(Object.entries(document as object));
  } catch {
    return new Map();
  }
}

function basic({ username, password }: { username: string; password: string }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
