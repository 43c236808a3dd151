import { type ByteRange, intersect, lengthOf, PantalaError } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { Conductor } from './conductor.ts';
import type { DownloadRequest, OpenTask, TrafficCount } from './contract.ts';
import type { Environment } from './environment.ts';
import { ReaderTraffic, Traffic } from './traffic.ts';

/** Of the metric of traffic. */
const LOCAL_PEER = { type: 'LOCAL_PEER' };

/** One surface's view of a task: what is held is read at once, the rest through the task's download. */
export class TaskReader implements OpenTask {
  readonly task: StoredTask;
  readonly hit: boolean;
  readonly #request: DownloadRequest;
  readonly #env: Environment;
  readonly #traffic: ReaderTraffic;
  /** Whether the task's download has still to check the whole. */
  readonly #verifying: () => boolean;
  /** The task's running download, or a new one. */
  readonly #conductor: () => Conductor;

  constructor(
    task: StoredTask,
    request: DownloadRequest,
    hit: boolean,
    env: Environment,
    conductor: () => Conductor,
    verifying: () => boolean,
    running: Conductor | undefined,
  ) {
    this.task = task;
    this.hit = hit;
    this.#request = request;
    this.#env = env;
    this.#conductor = conductor;
    this.#verifying = verifying;
    this.#traffic = new ReaderTraffic(running?.traffic ?? new Traffic());
  }

  get responseHeaders(): Readonly<Record<string, string>> {
    return this.task.description.responseHeaders;
  }

  get traffic(): TrafficCount {
    return this.#traffic;
  }

  takeHeld(range: ByteRange): boolean {
    this.#assertWithin(range);
    if (!this.task.has(range) || this.#verifying()) return false;
    this.#countHeld(lengthOf(range));
    return true;
  }

  async *extents(range: ByteRange, { signal }: { readonly signal: AbortSignal }): AsyncGenerator<ByteRange> {
    this.#assertWithin(range);
    if (range.start === range.end) return;
    const held = this.#heldBytes(range);
    this.#countHeld(held);
    if (held === lengthOf(range) && !this.#verifying()) yield range;
    else yield* this.#conductor().extents(range, signal);
  }

  async *direct(range: ByteRange, { signal }: { readonly signal: AbortSignal }): AsyncGenerator<Buffer> {
    if (range.start === range.end) return;
    const { url, requestHeaders } = this.#request;
    await using body = await this.#env.origin.fetch({ url, headers: requestHeaders, range, signal });
    for await (const chunk of body.chunks) {
      this.#env.metrics.traffic.add(chunk.length, { type: 'BACK_TO_SOURCE' });
      yield chunk;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Readers hold nothing of their own: a download ends when its last reader has been silent for a while.
  }

  #assertWithin(range: ByteRange): void {
    const { contentLength } = this.task.geometry;
    if (range.start < 0 || range.end > contentLength || range.start > range.end) {
      throw new PantalaError('out-of-range', `bytes ${range.start}-${range.end} of ${contentLength}`);
    }
  }

  #countHeld(bytes: number): void {
    this.#traffic.localBytes += bytes;
    if (bytes > 0) this.#env.metrics.traffic.add(bytes, LOCAL_PEER);
  }

  #heldBytes(range: ByteRange): number {
    if (this.task.has(range)) return lengthOf(range);
    const { geometry, blocks } = this.task;
    let held = 0;
    for (const run of blocks.runs(true, geometry.blocksOf(range))) {
      const part = intersect(range, geometry.runRange(run));
      if (part !== undefined) held += lengthOf(part);
    }
    return held;
  }
}
