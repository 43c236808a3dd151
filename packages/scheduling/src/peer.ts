import type { Host } from './host.ts';
import { BLOCKED_HOST_LIMIT } from './options.ts';
import type { Task, WantedRange } from './task.ts';

/** Upstream's names, as StatPeer shows them. */
export type PeerState =
  | 'Pending'
  | 'ReceivedEmpty'
  | 'ReceivedNormal'
  | 'Running'
  | 'BackToSource'
  | 'Succeeded'
  | 'Failed'
  | 'Leave';

export type PeerStep =
  | 'registerEmpty'
  | 'registerNormal'
  | 'download'
  | 'downloadBackToSource'
  | 'succeed'
  | 'fail'
  | 'leave';

/** Upstream's machine; steps that repeat a state (a second "started") are taken as no change. */
export const PEER_STEPS: Readonly<Record<PeerStep, { readonly from: readonly PeerState[]; readonly to: PeerState }>> = {
  registerEmpty: { from: ['Pending'], to: 'ReceivedEmpty' },
  registerNormal: { from: ['Pending'], to: 'ReceivedNormal' },
  download: { from: ['ReceivedEmpty', 'ReceivedNormal', 'Running'], to: 'Running' },
  downloadBackToSource: { from: ['ReceivedEmpty', 'ReceivedNormal', 'Running', 'BackToSource'], to: 'BackToSource' },
  succeed: { from: ['ReceivedEmpty', 'ReceivedNormal', 'Running', 'BackToSource'], to: 'Succeeded' },
  fail: {
    from: ['Pending', 'ReceivedEmpty', 'ReceivedNormal', 'Running', 'BackToSource', 'Succeeded'],
    to: 'Failed',
  },
  leave: {
    from: ['Pending', 'ReceivedEmpty', 'ReceivedNormal', 'Running', 'BackToSource', 'Succeeded', 'Failed'],
    to: 'Leave',
  },
};

/** A host's download of a task, or its copy of it. */
export class Peer {
  readonly id: string;
  readonly task: Task;
  readonly host: Host;
  state: PeerState = 'Pending';
  range: WantedRange | undefined;
  disableBackToSource = false;
  /** Whether its AnnouncePeer stream is open: answers can reach it. */
  streaming = false;
  /** Told to fetch from the origin, within the task's limit. */
  granted = false;
  /** Holds the whole content. */
  complete = false;
  finishedPieces = 0;
  /** Cost of pieces that it delivered, in milliseconds: how many, their mean, and the last. */
  costCount = 0;
  costMean = 0;
  costLast = 0;
  /** Undefined: not waiting for an answer. */
  waitingSince: number | undefined;
  attentionAt = 0;
  /** Its set of parents is not the one that it was sent last. */
  stale = false;
  createdAt: number;
  updatedAt: number;
  pieceAt: number;
  readonly parents = new Set<Peer>();
  readonly children = new Set<Peer>();
  /** Hosts that are not to be its parents, until when. Made when it is needed: most peers block nobody. */
  #blocked: Map<string, number> | undefined;

  constructor(id: string, task: Task, host: Host, now: number) {
    this.id = id;
    this.task = task;
    this.host = host;
    this.createdAt = now;
    this.updatedAt = now;
    this.pieceAt = now;
  }

  get pantala(): boolean {
    return this.host.pantala;
  }

  /** Downloading, or about to: wants parents. */
  get active(): boolean {
    return (
      this.streaming && (this.state === 'ReceivedNormal' || this.state === 'Running' || this.state === 'BackToSource')
    );
  }

  /** Has at least a part of the content, as far as it has told. */
  get holdsSomething(): boolean {
    return this.complete || this.finishedPieces > 0;
  }

  /** Whether the step is one of the machine's; the state changes only then. */
  step(step: PeerStep): boolean {
    const { from, to } = PEER_STEPS[step];
    if (!from.includes(this.state)) return false;
    this.state = to;
    return true;
  }

  /** Back to the beginning, for a peer that registers again. */
  restart(): void {
    this.state = 'Pending';
  }

  block(hostId: string, until: number): void {
    this.#blocked ??= new Map();
    const before = this.#blocked.get(hostId) ?? 0;
    this.#blocked.delete(hostId);
    this.#blocked.set(hostId, Math.max(before, until));
    if (this.#blocked.size > BLOCKED_HOST_LIMIT) {
      this.#blocked.delete(this.#blocked.keys().next().value as string);
    }
  }

  blocks(hostId: string, now: number): boolean {
    return (this.#blocked?.get(hostId) ?? 0) > now;
  }

  recordCost(costMs: number): void {
    if (this.costCount > 0) this.costMean += (this.costLast - this.costMean) / this.costCount;
    this.costLast = costMs;
    this.costCount++;
  }

  /** Upstream's sign of a parent in trouble: its last piece took more than 20 times as long as those before. */
  get sluggish(): boolean {
    return this.costCount >= 2 && this.costLast > 20 * Math.max(1, this.costMean);
  }
}
