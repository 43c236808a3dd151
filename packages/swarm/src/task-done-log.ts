import { type Logger, Lru, logPeerId, monotonicNow } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { DownloadRequest, TrafficCount } from './contract.ts';
import { newTraceId, taskDone } from './task-done.ts';

/** Tasks whose line for a part was written and that are remembered for it. */
const MAX_REMEMBERED = 16_384;

interface Asked {
  /** Milliseconds (monotonic). */
  readonly at: number;
  readonly trace: string;
  readonly peer: string;
}

/**
 * When the line "peer task done" is written: once for each task that a local reader's request or a prefetch
 * completed; for one read only in part, once when its readers have been silent.
 */
export class TaskDoneLog {
  readonly #logger: Logger;
  readonly #ip: string;
  readonly #verbose: boolean;
  readonly #asked = new Map<string, Asked>();
  readonly #silent = new Lru<string, true>(MAX_REMEMBERED);

  constructor(logger: Logger, ip: string, verbose: boolean) {
    this.#logger = logger;
    this.#ip = ip;
    this.#verbose = verbose;
  }

  /** A request that misses something; those of other peers write no line. */
  asked(task: StoredTask, request: DownloadRequest, at: number): void {
    const { id } = task.description;
    if (request.reader === 'peer' || this.#asked.has(id)) return;
    this.#asked.set(id, { at, trace: request.traceId ?? newTraceId(), peer: logPeerId(this.#ip) });
    // Content whose length was unknown is complete before anybody reads it.
    if (task.complete) this.completed(task, { originBytes: task.geometry.contentLength, peerBytes: 0, localBytes: 0 });
  }

  completed(task: StoredTask, traffic: TrafficCount): void {
    const asked = this.#asked.get(task.description.id);
    if (asked === undefined) return;
    this.#asked.delete(task.description.id);
    this.#write(task, asked, traffic, monotonicNow());
  }

  /** Nobody has read it for a while. @param at when the last reader had what it wanted */
  silent(task: StoredTask, traffic: TrafficCount, at: number): void {
    const { id } = task.description;
    const asked = this.#asked.get(id);
    if (asked === undefined) return;
    this.#asked.delete(id);
    if (task.blocks.count === 0 || this.#silent.get(id) === true) return;
    this.#silent.set(id, true);
    this.#write(task, asked, traffic, at);
  }

  forget(taskId: string): void {
    this.#silent.delete(taskId);
  }

  #write(task: StoredTask, asked: Asked, traffic: TrafficCount, at: number): void {
    const { url } = task.description;
    const { contentLength } = task.geometry;
    const { originBytes, peerBytes } = traffic;
    taskDone(this.#logger, {
      peer: asked.peer,
      task: task.description.id,
      trace: asked.trace,
      milliseconds: at - asked.at,
      ...(this.#verbose ? { more: { url, contentLength, originBytes, peerBytes } } : {}),
    });
  }
}
