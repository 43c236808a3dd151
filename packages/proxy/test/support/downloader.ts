import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  BLOCK_LENGTH,
  type ByteRange,
  blockDigest,
  defaultPieceLength,
  PantalaError,
  taskId,
  throwIfAborted,
} from '@pantala/base';
import { openStore, type StoredTask, type TaskStore } from '@pantala/store';
import type { Downloader, DownloadRequest, OpenTask } from '@pantala/swarm';
import { OriginError } from '@pantala/transfer';

interface Hooks {
  /** Runs before each extent is handed out. */
  beforeExtent?: (extent: ByteRange) => Promise<void> | void;
  /** Runs when a task is opened. */
  beforeOpen?: (request: DownloadRequest) => void;
}

/**
 * The contract of Downloader over a real store: a task's content is fetched when it is opened, and put into the store
 * extent by extent as a reader demands it.
 */
export class StoreDownloader implements Downloader, AsyncDisposable {
  readonly requests: { request: DownloadRequest; range: ByteRange | undefined }[] = [];
  readonly hooks: Hooks = {};
  readonly store: TaskStore;
  readonly #directory: string;
  opened = 0;
  closed = 0;
  /** What the origin sent, by task. */
  readonly #contents = new Map<string, Buffer>();

  private constructor(store: TaskStore, directory: string) {
    this.store = store;
    this.#directory = directory;
  }

  static async start(): Promise<StoreDownloader> {
    const directory = mkdtempSync(join(tmpdir(), 'proxy-'));
    return new StoreDownloader(await openStore({ directory: join(directory, 'store') }), directory);
  }

  async open(request: DownloadRequest, options: { signal: AbortSignal; range?: ByteRange }): Promise<OpenTask> {
    this.requests.push({ request, range: options.range });
    this.hooks.beforeOpen?.(request);
    const id = taskId(request);
    let task = this.store.get(id);
    if (task === undefined) {
      const answer = await fetch(request.url, { headers: request.requestHeaders, signal: options.signal });
      const headers = Object.fromEntries(answer.headers);
      if (!answer.ok) throw new OriginError(new URL(request.url), answer.status, headers);
      if (answer.headers.get('content-length') === null) {
        throw new PantalaError('unimplemented', 'content of unknown length is no task');
      }
      this.#contents.set(id, Buffer.from(await answer.arrayBuffer()));
      const contentLength = Number(headers['content-length']);
      const pieceLength = defaultPieceLength(contentLength);
      task = await this.store.create({ id, url: request.url, contentLength, pieceLength, responseHeaders: headers });
    }
    this.opened++;
    return this.#openTask(task, task.complete);
  }

  #openTask(task: StoredTask, hit: boolean): OpenTask {
    const { hooks } = this;
    const content = this.#contents.get(task.description.id) ?? Buffer.alloc(0);
    return {
      task,
      hit,
      responseHeaders: task.description.responseHeaders,
      traffic: { originBytes: 0, peerBytes: 0, localBytes: 0 },
      takeHeld: (range) => hooks.beforeExtent === undefined && task.has(range),
      async *extents(range, { signal }) {
        for (let start = range.start; start < range.end; start += BLOCK_LENGTH * 8) {
          const extent = { start, end: Math.min(start + BLOCK_LENGTH * 8, range.end) };
          throwIfAborted(signal);
          await hooks.beforeExtent?.(extent);
          throwIfAborted(signal);
          if (!task.has(extent)) await fill(task, content, extent);
          yield extent;
        }
      },
      async *direct(range) {
        yield content.subarray(range.start, range.end);
      },
      [Symbol.asyncDispose]: async () => {
        this.closed++;
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store[Symbol.asyncDispose]();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

async function fill(task: StoredTask, content: Buffer, range: ByteRange): Promise<void> {
  for (const run of task.blocks.runs(false, task.geometry.blocksOf(range))) {
    for (let block = run.first; block < run.first + run.count; block++) {
      const { start, end } = task.geometry.blockRange(block);
      const data = content.subarray(start, end);
      await task.write({ first: block, count: 1 }, data, blockDigest(data), 'checked');
    }
  }
}
