import type { Held } from './held.ts';

/** How a worker is started: the guardian does it again whenever one dies. */
export interface WorkerCommand {
  readonly executable: string;
  readonly arguments: readonly string[];
}

/** What the guardian is started with, as JSON in a variable. */
export interface GuardianSettings {
  /** Its unix socket. */
  readonly socket: string;
  /** Undefined where somebody else starts the next worker. */
  readonly worker?: WorkerCommand;
  /** Directories of control groups that it makes and joins: whoever ends the worker's must not end the guardian. */
  readonly controlGroups: readonly string[];
  /** File to which what the processes print is appended. */
  readonly log: string;
}

export const GUARDIAN_VARIABLE = 'PANTALA_GUARDIAN';

/** Lines of JSON that a worker sends. */
export type WorkerMessage =
  /** It serves. Its death, which ends the connection, has another one started. */
  | { readonly kind: 'worker'; readonly pid: number }
  /** It will end by itself: the next one is started by this command, and takes over when it does. */
  | { readonly kind: 'replace'; readonly worker: WorkerCommand }
  /** Nothing is to be held any more. */
  | { readonly kind: 'leave' };

/** The guardian's answer to `worker`. */
export interface GuardianMessage {
  readonly kind: 'guardian';
  readonly pid: number;
  /** Its oom_score_adj: the OOM killer spares it at -1000. */
  readonly oomScore: number;
  /** What it holds, by its own numbers: a worker that it has not started takes copies (pidfd_getfd(2)). */
  readonly held: Held;
  /** Control groups that it could not join, with the reason. */
  readonly notJoined: readonly string[];
}

/**
 * What a worker sends first to a guardian of the host, with the descriptors that it has itself: they take the place of
 * those that the guardian had.
 */
export interface HostGuardianRequest {
  readonly kind: 'worker';
  /** Whether another worker that is connected is to make way; else the answer is then `busy`. */
  readonly replaces: boolean;
}

/** The answer: with what the guardian holds, for a worker that has nothing. */
export type HostGuardianAnswer =
  | { readonly kind: 'busy' }
  | {
      readonly kind: 'guardian';
      /** In its own PID namespace, the host's. */
      readonly pid: number;
      readonly oomScore: number;
      readonly notJoined: readonly string[];
    };

/** Lines that a standby gets on its stdin. */
export const TAKE_OVER = 'take over';
