import type { Decision, HostFacts, SchedulerEvent, SchedulingOptions } from '@pantala/scheduling';
import { SchedulerCore } from '@pantala/scheduling';

export const TASK = 'a'.repeat(64);
export const PIECE_LENGTH = 4 * 1024 * 1024;

/** A core with a clock of its own and everything that it decided. */
export class World {
  readonly core: SchedulerCore;
  readonly decisions: Decision[] = [];
  now = 0;

  constructor(options: SchedulingOptions = {}) {
    this.core = new SchedulerCore(options);
  }

  send(event: SchedulerEvent): Decision[] {
    const decided = this.core.handle(event, this.now);
    this.decisions.push(...decided);
    return decided;
  }

  /** Lets time pass, with every tick that falls due. */
  pass(milliseconds: number): Decision[] {
    const until = this.now + milliseconds;
    const decided: Decision[] = [];
    while (this.core.nextTickAt <= until) {
      this.now = Math.max(this.now, this.core.nextTickAt);
      decided.push(...this.send({ type: 'tick' }));
    }
    this.now = until;
    return decided;
  }

  host(id: string, facts: Partial<HostFacts> & { readonly pantala?: boolean } = {}): void {
    const { pantala = false, ...rest } = facts;
    this.send({
      type: 'hostAnnounced',
      host: { id, seed: false, idc: '', location: '', disableShared: false, announceIntervalMs: 0, ...rest },
    });
    if (!pantala) return;
    this.send({ type: 'hostConnected', hostId: id });
    this.send({ type: 'heldTasks', hostId: id, tasks: [], completeList: true });
  }

  register(hostId: string, more: Partial<Extract<SchedulerEvent, { type: 'peerRegistered' }>> = {}): Decision[] {
    return this.send({
      type: 'peerRegistered',
      hostId,
      taskId: TASK,
      peerId: `${hostId}-peer`,
      facts: { contentLength: 10 * PIECE_LENGTH, pieceLength: PIECE_LENGTH, digest: undefined },
      range: undefined,
      metadataOnly: false,
      needBackToSource: false,
      disableBackToSource: false,
      ...more,
    });
  }

  /** An event of the one peer of a host. */
  peer(
    hostId: string,
    type:
      | 'peerStarted'
      | 'backToSourceStarted'
      | 'peerFinished'
      | 'backToSourceFinished'
      | 'peerFailed'
      | 'backToSourceFailed'
      | 'streamClosed'
      | 'peerDeleted',
  ): Decision[] {
    return this.send({ type, hostId, taskId: TASK, peerId: `${hostId}-peer` });
  }

  piece(hostId: string, parentHostId?: string, costMs = 10): Decision[] {
    return this.send({
      type: 'pieceFinished',
      hostId,
      taskId: TASK,
      peerId: `${hostId}-peer`,
      length: PIECE_LENGTH,
      costMs,
      parentId: parentHostId === undefined ? undefined : `${parentHostId}-peer`,
    });
  }
}

/** The decisions of one type. */
export function only<T extends Decision['type']>(
  decisions: readonly Decision[],
  type: T,
): Extract<Decision, { type: T }>[] {
  return decisions.filter((decision): decision is Extract<Decision, { type: T }> => decision.type === type);
}

export function types(decisions: readonly Decision[]): string[] {
  return decisions.map((decision) => decision.type);
}
