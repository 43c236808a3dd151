import { AbortScope, abortable, PantalaError, SingleFlight } from '@pantala/base';
import { Authorizer, type CredentialSource, type HttpTransport } from '@pantala/oci';

/** Milliseconds that a read waits for the registry's word on tokens before it goes to the mirror without one. */
const LEARNING_LIMIT = 500;

export interface AuthorizationParts {
  readonly registry: URL;
  readonly repository: string;
  readonly credentials: CredentialSource;
  /** To the registry and its token server themselves. */
  readonly transport: HttpTransport;
}

/** What the registry wants to see before it gives blobs of one repository; shared by all sources that need it. */
export class Authorization {
  readonly #parts: AuthorizationParts;
  readonly #authorizer: Authorizer;
  readonly #scope: string;
  readonly #learning = new SingleFlight<string, void>();
  #learned = false;

  constructor(parts: AuthorizationParts) {
    this.#parts = parts;
    this.#authorizer = new Authorizer(parts);
    this.#scope = `repository:${parts.repository}:pull`;
  }

  /** The `Authorization` header as far as it is known, with a fresh token where the old one has expired. */
  header(signal: AbortSignal): Promise<string | undefined> {
    return this.#authorizer.header(this.#scope, signal);
  }

  /** Answers a 401. @throws `unauthenticated` when there is nothing (else) to try */
  challenged(challenge: string, rejected: string | undefined, signal: AbortSignal): Promise<string> {
    this.#learned = true;
    return this.#authorizer.challenged(challenge, this.#scope, rejected, signal);
  }

  /**
   * Asks the registry itself once whether it wants a token for this repository, so that a mirror is asked with it from
   * the first read on. A registry that does not answer is no reason not to ask the mirror.
   */
  async learn(blobPath: string, signal: AbortSignal): Promise<void> {
    if (this.#learned) return;
    using limit = new AbortScope([signal], { timeout: LEARNING_LIMIT });
    const learning = this.#learning.run('registry', undefined, () => this.#ask(blobPath, undefined));
    await abortable(learning, limit.signal).catch((error: unknown) => {
      if (signal.aborted) throw error;
    });
  }

  /** A header in place of one that a mirror did not take; the registry itself says whether it is any good. */
  async renewed(blobPath: string, rejected: string | undefined, signal: AbortSignal): Promise<string | undefined> {
    await abortable(
      this.#learning.run('registry', undefined, () => this.#ask(blobPath, rejected)),
      signal,
    );
    const header = await this.header(signal);
    return header === rejected ? undefined : header;
  }

  async #ask(blobPath: string, authorization: string | undefined): Promise<void> {
    const { transport, registry } = this.#parts;
    const headers = { 'user-agent': 'pantala', ...(authorization === undefined ? {} : { authorization }) };
    using scope = new AbortScope([], { timeout: 10_000, what: `a question to ${registry.host}` });
    await using response = await transport.request({
      method: 'HEAD',
      url: new URL(blobPath, registry),
      headers,
      signal: scope.signal,
    });
    const challenge = response.headers['www-authenticate'];
    if (response.status === 401 && challenge !== undefined) {
      await this.challenged(challenge, authorization, scope.signal);
    } else if (response.status >= 500) {
      throw new PantalaError('unavailable', `${registry.host} answered ${response.status}`);
    }
    this.#learned = true;
  }
}
