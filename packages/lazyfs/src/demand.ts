import { constants } from 'node:os';
import { AbortScope, type ByteRange, intersect, type Logger, PantalaError } from '@pantala/base';
import type { ServedBlob } from './driver.ts';

export interface DemandOptions {
  /** Milliseconds after which a reader gets an error. Default 60,000. */
  readonly deadline?: number;
  readonly logger: Logger;
}

const DEFAULT_DEADLINE = 60_000;
const UNENDING = new AbortController().signal;
/** Milliseconds in which a range that failed fails again at once: the kernel asks a second time for each failed read. */
const FAILURE_MEMORY = 500;
/** Failures that are remembered. */
const MAX_FAILURES = 256;

/** A read that has no answer yet. */
export interface WaitingRead {
  /** 64 hex digits. */
  readonly blobId: string;
  readonly offset: number;
  readonly length: number;
  /** Milliseconds since 1970. */
  readonly since: number;
}

interface Failure {
  readonly id: string;
  readonly range: ByteRange;
  readonly errno: number;
  readonly until: number;
}

/** Makes the bytes be there that a reader waits for, within its deadline; the same for every driver. */
export class Demand {
  readonly #deadline: number;
  readonly #logger: Logger;
  readonly #recent: Failure[] = [];
  readonly #waiting = new Set<WaitingRead>();

  constructor({ deadline, logger }: DemandOptions) {
    this.#deadline = deadline ?? DEFAULT_DEADLINE;
    this.#logger = logger;
  }

  /** Reads that have no answer yet, the oldest first. */
  get waiting(): WaitingRead[] {
    return [...this.#waiting];
  }

  /**
   * Resolves when the bytes of a blob may be read, with 0, or with the errno that the reader gets.
   *
   * @param users the same blob as each mount has it: when one cannot get at the bytes, the next is asked
   * @param offset first byte
   * @param count bytes; may reach beyond the end
   */
  async satisfy(users: Iterable<ServedBlob>, offset: number, count: number): Promise<number> {
    let errno: number = constants.errno.EIO;
    for (const served of users) {
      errno = await this.#satisfyFor(served, offset, count);
      if (errno === 0) break;
    }
    return errno;
  }

  async #satisfyFor(served: ServedBlob, offset: number, count: number): Promise<number> {
    const range: ByteRange = { start: Math.min(offset, served.size), end: Math.min(offset + count, served.size) };
    if (range.start >= range.end) return 0;
    const began = performance.now();
    const failed = this.#recent.find((each) => each.id === served.id && intersect(each.range, range) !== undefined);
    if (failed !== undefined && began < failed.until) return failed.errno;
    const read: WaitingRead = { blobId: served.id, offset, length: count, since: Date.now() };
    this.#waiting.add(read);
    try {
      const blob = await served.open();
      if (blob.complete) return 0;
      if ((blob.nextMissing(range.start) ?? range.end) >= range.end) {
        // Nothing to wait for: it is only counted.
        await blob.ensure(range, { urgency: 'demand', signal: UNENDING });
        return 0;
      }
      using scope = new AbortScope([], { timeout: this.#deadline, what: `bytes ${range.start}+ of ${served.id}` });
      await blob.ensure(range, { urgency: 'demand', signal: scope.signal });
      return 0;
    } catch (thrown) {
      const error = PantalaError.from(thrown);
      this.#logger.error('a lazy read failed', { blob: served.id, offset, count, error });
      const errno = error.code === 'disk-full' ? constants.errno.ENOSPC : constants.errno.EIO;
      this.#remember({ id: served.id, range, errno, until: performance.now() + FAILURE_MEMORY });
      return errno;
    } finally {
      this.#waiting.delete(read);
    }
  }

  #remember(failure: Failure): void {
    const now = performance.now();
    const old = this.#recent.findIndex(({ until }) => until > now);
    this.#recent.splice(0, old === -1 ? this.#recent.length : old);
    if (this.#recent.length < MAX_FAILURES) this.#recent.push(failure);
  }
}
