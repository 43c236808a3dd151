import { copyFileSync, linkSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  Bitmap,
  BLOCK_LENGTH,
  type ByteRange,
  defaultPieceLength,
  Geometry,
  lengthOf,
  PantalaError,
  taskId,
  throwIfAborted,
} from '@pantala/base';
import type { StoredTask, TaskDescription } from '@pantala/store';
import type { Downloader, DownloadRequest, OpenTask } from '@pantala/swarm';

class OriginError extends PantalaError {
  readonly headers: Record<string, string>;
  constructor(status: number, headers: Record<string, string>) {
    super('origin', `the origin answered ${status}`, { details: { status } });
    this.headers = headers;
  }
}

interface Hooks {
  /** Runs before each extent is handed out. */
  beforeExtent?: (extent: ByteRange) => Promise<void> | void;
  /** Runs when a task is opened. */
  beforeOpen?: (request: DownloadRequest) => void;
}

/**
 * The contract of Downloader over plain files and fetch: a task is fetched from its origin extent by extent, as a
 * reader demands it.
 */
export class FileDownloader implements Downloader, Disposable {
  readonly requests: { request: DownloadRequest; range: ByteRange | undefined }[] = [];
  readonly hooks: Hooks = {};
  readonly directory = mkdtempSync(join(tmpdir(), 'proxy-'));
  opened = 0;
  closed = 0;
  readonly #tasks = new Map<string, FileTask>();

  async open(request: DownloadRequest, options: { signal: AbortSignal; range?: ByteRange }): Promise<OpenTask> {
    this.requests.push({ request, range: options.range });
    this.hooks.beforeOpen?.(request);
    const id = taskId(request);
    let task = this.#tasks.get(id);
    if (task === undefined) {
      const answer = await fetch(request.url, { headers: request.requestHeaders, signal: options.signal });
      const headers = Object.fromEntries(answer.headers);
      if (!answer.ok) throw new OriginError(answer.status, headers);
      if (answer.headers.get('content-length') === null) {
        throw new PantalaError('unimplemented', 'content of unknown length is no task');
      }
      const content = Buffer.from(await answer.arrayBuffer());
      task = new FileTask(join(this.directory, id), { id, url: request.url, headers, content });
      this.#tasks.set(id, task);
    }
    this.opened++;
    return this.#openTask(task, task.complete);
  }

  #openTask(task: FileTask, hit: boolean): OpenTask {
    const { hooks } = this;
    return {
      task,
      hit,
      responseHeaders: task.description.responseHeaders,
      traffic: { originBytes: 0, peerBytes: 0, localBytes: 0 },
      async *extents(range, { signal }) {
        for (let start = range.start; start < range.end; start += BLOCK_LENGTH * 8) {
          const extent = { start, end: Math.min(start + BLOCK_LENGTH * 8, range.end) };
          throwIfAborted(signal);
          await hooks.beforeExtent?.(extent);
          throwIfAborted(signal);
          if (!task.has(extent)) task.fill(extent);
          yield extent;
        }
      },
      async *direct(range) {
        yield task.origin.subarray(range.start, range.end);
      },
      [Symbol.asyncDispose]: async () => {
        this.closed++;
      },
    };
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

class FileTask implements StoredTask {
  readonly description: TaskDescription;
  readonly geometry: Geometry;
  readonly blocks: Bitmap;
  readonly provisional: Bitmap;
  readonly createdAt = Date.now();
  readonly completedAt = undefined;
  readonly origin: Buffer;
  readonly #path: string;
  readonly #fd: number;

  constructor(path: string, given: { id: string; url: string; headers: Record<string, string>; content: Buffer }) {
    const pieceLength = defaultPieceLength(given.content.length);
    const { id, url, headers } = given;
    this.description = { id, url, contentLength: given.content.length, pieceLength, responseHeaders: headers };
    this.geometry = new Geometry(given.content.length, pieceLength);
    this.blocks = new Bitmap(this.geometry.blockCount);
    this.provisional = new Bitmap(this.geometry.blockCount);
    this.origin = given.content;
    this.#path = path;
    this.#fd = openSync(path, 'w+');
  }

  get complete(): boolean {
    return this.blocks.count === this.blocks.length;
  }

  fill(range: ByteRange): void {
    const run = this.geometry.blocksOf(range);
    const bytes = this.geometry.runRange(run);
    writeSync(this.#fd, this.origin, bytes.start, lengthOf(bytes), bytes.start);
    this.blocks.setRun(run);
  }

  has(range: ByteRange): boolean {
    return lengthOf(range) === 0 || this.blocks.hasAll(this.geometry.blocksOf(range));
  }

  async read(range: ByteRange): Promise<Buffer> {
    if (!this.has(range)) throw new PantalaError('failed-precondition', 'not held');
    const data = Buffer.alloc(lengthOf(range));
    readSync(this.#fd, data, 0, data.length, range.start);
    return data;
  }

  lease() {
    return { fd: this.#fd, [Symbol.dispose]() {} };
  }

  async copyTo(path: string): Promise<void> {
    copyFileSync(this.#path, path);
  }

  async linkTo(path: string): Promise<void> {
    linkSync(this.#path, path);
  }

  availableFrom(): number {
    throw unused();
  }
  async write(): Promise<void> {
    throw unused();
  }
  async promote(): Promise<void> {
    throw unused();
  }
  discardProvisional(): void {
    throw unused();
  }
  blockDigests(): Buffer | undefined {
    throw unused();
  }
  pieceDigest(): Buffer | undefined {
    throw unused();
  }
  async pieceCrc32(): Promise<number> {
    throw unused();
  }
  subscribe(): Disposable {
    throw unused();
  }
}

function unused(): Error {
  return new Error('the proxy has no use for this');
}
