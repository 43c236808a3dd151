import {
  BLOCK_LENGTH,
  type BlockRun,
  type ByteRange,
  blobDigestOfUrl,
  defaultPieceLength,
  type Geometry,
  lengthOf,
  monotonicNow,
  PantalaError,
  SingleFlight,
} from '@pantala/base';
import type { StoredTask, TaskDescription } from '@pantala/store';
import type { OriginBody } from '@pantala/transfer';
import type { OriginFacts } from './conductor.ts';
import { type DownloadRequest, URGENT_LENGTH } from './contract.ts';
import type { Environment } from './environment.ts';
import { spoolContent } from './origin-spool.ts';
import { Announcement } from './schedulers/announcement.ts';
import type { SchedulerLink } from './schedulers/link.ts';
import { digestBlocks } from './verification.ts';

/** A task that is new here. */
interface CreatedTask {
  readonly task: StoredTask;
  readonly origin: OriginFacts;
}

/** Makes tasks of what is not known here yet, each once whoever asks for it. */
export class TaskCreation {
  readonly #env: Environment;
  /** Bytes that origins send already, for downloads that begin at once. */
  readonly #begun = new Map<string, { readonly body: OriginBody; readonly at: number }>();
  readonly #creating = new SingleFlight<string, CreatedTask>();

  constructor(env: Environment) {
    this.#env = env;
  }

  /**
   * Learns from the origin what the resource is, and creates its task.
   *
   * @param wanted what will be read first, where that is known
   */
  create(
    id: string,
    request: DownloadRequest,
    wanted: ByteRange | undefined,
    signal: AbortSignal,
  ): Promise<CreatedTask> {
    return this.#creating.run(id, signal, (flight) => this.#create(id, request, wanted, flight));
  }

  /** Bytes of a new task that its origin sends already; the caller's from now on. */
  takeBegun(id: string): OriginBody | undefined {
    const body = this.#begun.get(id)?.body;
    this.#begun.delete(id);
    return body;
  }

  /** Lets go of what was begun before then (monotonic milliseconds): whoever asked went away. */
  dropBegun(before: number): void {
    for (const [id, { body, at }] of this.#begun) {
      if (at > before) continue;
      this.#begun.delete(id);
      void body[Symbol.asyncDispose]();
    }
  }

  async #create(
    id: string,
    request: DownloadRequest,
    wanted: ByteRange | undefined,
    signal: AbortSignal,
  ): Promise<CreatedTask> {
    if (request.disableBackToSource === true && !this.#env.schedulers.configured) {
      throw new PantalaError('unavailable', 'there are no peers, and the request forbids to ask the origin');
    }
    const ask = { url: request.url, headers: request.requestHeaders, signal };
    const link = this.#env.schedulers.linkOf(id);
    const announcement = link === undefined || link.alone ? undefined : new Announcement(link);
    let body: OriginBody | undefined;
    try {
      const first = this.#nobodyElse(link) ? beginningOf(wanted) : undefined;
      const begun = first === undefined ? undefined : await this.#env.origin.begin({ ...ask, ...first });
      body = begun?.body;
      const stat = begun?.stat ?? (await this.#env.origin.stat(ask));
      // Of an encoded blob only all of it tells what its digest is of.
      const encoded = stat.headers['content-encoding'] ?? 'identity';
      if (stat.contentLength === undefined || (encoded !== 'identity' && blobDigestOfUrl(request.url) !== undefined)) {
        announcement?.[Symbol.dispose]();
        await body?.[Symbol.asyncDispose]();
        return { task: await this.#createSpooled(id, request, signal), origin: { ranges: false } };
      }
      const task = await this.#env.store.create(this.#describe(id, request, stat.contentLength, stat.headers));
      if (body !== undefined) this.#begun.set(id, { body, at: monotonicNow() });
      return { task, origin: { ranges: stat.acceptsRanges, ...(announcement === undefined ? {} : { announcement }) } };
    } catch (error) {
      await body?.[Symbol.asyncDispose]();
      announcement?.[Symbol.dispose]();
      throw error;
    }
  }

  /** Whether the origin alone can be asked, so that its first answer may as well bring bytes. */
  #nobodyElse(link: SchedulerLink | undefined): boolean {
    const { schedulers, options } = this.#env;
    return link === undefined ? !schedulers.configured && options.staticSeeds.length === 0 : link.alone;
  }

  #describe(
    id: string,
    request: DownloadRequest,
    contentLength: number,
    responseHeaders: Readonly<Record<string, string>>,
  ): TaskDescription {
    const blob = blobDigestOfUrl(request.url);
    // Only what the task's id vouches for: a caller's own digest is checked on what that caller gets, or one who names
    // a wrong digest would void what everybody else was given.
    const digest = blob === undefined ? undefined : `sha256:${blob}`;
    return {
      id,
      url: request.url,
      contentLength,
      pieceLength: request.pieceLength ?? defaultPieceLength(contentLength),
      responseHeaders,
      ...(digest === undefined ? {} : { digest }),
      ...(request.tag === undefined ? {} : { tag: request.tag }),
      ...(request.application === undefined ? {} : { application: request.application }),
    };
  }

  /** An origin that does not say how long its content is, or encodes it unasked: all of it comes first. */
  async #createSpooled(id: string, request: DownloadRequest, signal: AbortSignal): Promise<StoredTask> {
    const { origin, options, store } = this.#env;
    const ask = { url: request.url, headers: request.requestHeaders, signal };
    const digest = blobDigestOfUrl(request.url);
    await using spooled = await spoolContent(origin, ask, options.spoolDirectory, digest);
    const task = await store.create(this.#describe(id, request, spooled.contentLength, spooled.headers));
    const { geometry } = task;
    for (const run of spoolRuns(geometry)) {
      const data = await spooled.read(geometry.runRange(run));
      await task.write(run, data, digestBlocks(geometry, run, data), 'checked');
    }
    await task.promote();
    return task;
  }
}

/** All of a content whose length is not known yet. */
export const WHOLE: ByteRange = { start: 0, end: Number.POSITIVE_INFINITY };

/** What to ask for at once when `wanted` is what will be read: whole blocks of all of it, or of a small range. */
function beginningOf(wanted: ByteRange | undefined): { readonly range?: ByteRange } | undefined {
  if (wanted === undefined || wanted === WHOLE) return wanted && {};
  if (lengthOf(wanted) > URGENT_LENGTH) return undefined;
  const start = wanted.start - (wanted.start % BLOCK_LENGTH);
  return { range: { start, end: Math.ceil(wanted.end / BLOCK_LENGTH) * BLOCK_LENGTH } };
}

/** The blocks of a task in runs of at most a megabyte within one piece. */
function* spoolRuns(geometry: Geometry): Generator<BlockRun> {
  const longest = 64;
  for (let piece = 0; piece < geometry.pieceCount; piece++) {
    const blocks = geometry.pieceBlocks(piece);
    for (let first = blocks.first; first < blocks.first + blocks.count; first += longest) {
      yield { first, count: Math.min(longest, blocks.first + blocks.count - first) };
    }
  }
}
