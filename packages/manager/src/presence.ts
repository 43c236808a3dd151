import { type Logger, PantalaError } from '@pantala/base';
import type { Member, MemberKind, Repository } from './repository.ts';

/**
 * Who is there: a program is active from its first keep-alive message until its last stream has ended or has been
 * silent for too long. Nobody who is gone is ever offered to a peer.
 */
export class Presence implements Disposable {
  readonly #repository: Repository;
  readonly #timeout: number;
  readonly #logger: Logger;
  /** Open streams of each program: a new one may begin before the end of the old one is noticed. */
  readonly #streams = new Map<string, number>();
  readonly #expectations = new Map<string, NodeJS.Timeout>();

  constructor(repository: Repository, timeout: number, logger: Logger) {
    this.#repository = repository;
    this.#timeout = timeout;
    this.#logger = logger;
    // Those that were active before a restart stay so for as long as they may need to come back.
    for (const kind of ['scheduler', 'seed_peer'] as const) {
      for (const member of repository.activeMembers(kind)) {
        const key = keyOf(kind, member);
        const timer = setTimeout(() => {
          this.#expectations.delete(key);
          if (!this.#streams.has(key)) this.#leave(kind, member);
        }, timeout);
        this.#expectations.set(key, timer.unref());
      }
    }
  }

  /**
   * Follows one keep-alive stream to its end.
   *
   * @param messages one for each sign of life
   * @throws `not-found` when the member never registered; `deadline-exceeded` after a silence
   */
  async follow(kind: MemberKind, member: Member, messages: AsyncIterator<unknown>): Promise<void> {
    if (!this.#repository.setActive(kind, member, true)) {
      throw new PantalaError(
        'not-found',
        `${member.hostname} (${member.ip}) is not registered in cluster ${member.clusterId}`,
      );
    }
    const key = keyOf(kind, member);
    this.#streams.set(key, (this.#streams.get(key) ?? 0) + 1);
    this.#logger.info('active', { kind, ...member });
    try {
      while (await this.#next(messages));
    } finally {
      const left = (this.#streams.get(key) ?? 1) - 1;
      if (left > 0) this.#streams.set(key, left);
      else {
        this.#streams.delete(key);
        this.#leave(kind, member);
      }
    }
  }

  async #next(messages: AsyncIterator<unknown>): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const silence = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new PantalaError('deadline-exceeded', `no keep-alive message for ${this.#timeout} ms`));
      }, this.#timeout);
    });
    try {
      return (await Promise.race([messages.next(), silence])).done !== true;
    } finally {
      clearTimeout(timer);
    }
  }

  #leave(kind: MemberKind, member: Member): void {
    if (this.#closed) return;
    this.#repository.setActive(kind, member, false);
    this.#logger.info('inactive', { kind, ...member });
  }

  /** After it nobody leaves any more: the streams end because the manager does. */
  [Symbol.dispose](): void {
    this.#closed = true;
    for (const timer of this.#expectations.values()) clearTimeout(timer);
  }

  #closed = false;
}

function keyOf(kind: MemberKind, { hostname, ip, clusterId }: Member): string {
  return `${kind} ${clusterId} ${ip} ${hostname}`;
}
