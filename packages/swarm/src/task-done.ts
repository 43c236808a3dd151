import { randomBytes, randomUUID } from 'node:crypto';
import type { Logger } from '@pantala/base';

/** Facts of the line that operators and their tools know since the Go client. */
export interface TaskDone {
  /** `<ip>-<pid>-<uuid>`: see `logPeerId`. */
  readonly peer: string;
  readonly task: string;
  /** 32 hex digits: of the request, else a random one (`newTraceId`). */
  readonly trace: string;
  readonly milliseconds: number;
  /** More for those who log at length; goes behind the known keys. */
  readonly more?: Readonly<Record<string, unknown>>;
}

/** Where the Go client wrote it; some tools select lines by it. */
const CALLER = 'peer/peertask_conductor.go:1349';

/** Writes the line "peer task done" with the keys in the order that the Go client wrote them. */
export function taskDone(logger: Logger, done: TaskDone): void {
  logger.info(`peer task done, cost: ${Math.max(0, Math.round(done.milliseconds))}ms`, {
    caller: CALLER,
    peer: done.peer,
    task: done.task,
    component: 'PeerTask',
    trace: done.trace,
    ...done.more,
  });
}

/** The peer's name as that line has it. */
export function logPeerId(ip: string): string {
  return `${ip}-${process.pid}-${randomUUID()}`;
}

/** A W3C trace id for a request that brought none. */
export function newTraceId(): string {
  return randomBytes(16).toString('hex');
}
