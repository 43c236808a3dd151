import type { ErrorCode } from '@pantala/base';
import type { DigestReport } from './digest-book.ts';
import type { HostFacts } from './host.ts';
import type { TaskFacts, WantedRange } from './task.ts';

interface OfPeer {
  readonly hostId: string;
  readonly taskId: string;
  readonly peerId: string;
}

/** What a peer says about its download when it registers. */
export interface Registration extends OfPeer {
  readonly type: 'peerRegistered';
  readonly facts: TaskFacts;
  /** Undefined: the whole content is wanted. */
  readonly range: WantedRange | undefined;
  readonly metadataOnly: boolean;
  readonly needBackToSource: boolean;
  readonly disableBackToSource: boolean;
}

/** A task that a host holds (part of), from its list after a connect or as it changes. */
export interface HeldTask {
  readonly taskId: string;
  readonly peerId: string;
  readonly facts: TaskFacts;
  /** 0: gone. */
  readonly blockCount: number;
  readonly report: DigestReport | undefined;
}

/** Everything that the scheduler learns. Events of peers that it does not know are without effect. */
export type SchedulerEvent =
  | { readonly type: 'hostAnnounced'; readonly host: HostFacts }
  | { readonly type: 'hostDeleted'; readonly hostId: string }
  /** The host's Converse stream opened: it is a Pantala host. */
  | { readonly type: 'hostConnected'; readonly hostId: string }
  | { readonly type: 'hostDisconnected'; readonly hostId: string }
  | Registration
  | (OfPeer & { readonly type: 'peerStarted' })
  | (OfPeer & { readonly type: 'backToSourceStarted' })
  | (OfPeer & {
      readonly type: 'pieceFinished';
      readonly length: number;
      readonly costMs: number;
      /** Undefined: from the origin, or held before. */
      readonly parentId: string | undefined;
    })
  | (OfPeer & { readonly type: 'pieceFailed'; readonly parentId: string })
  | (OfPeer & { readonly type: 'rescheduled'; readonly badParentIds: readonly string[] })
  | (OfPeer & { readonly type: 'peerFinished' })
  | (OfPeer & { readonly type: 'backToSourceFinished' })
  | (OfPeer & { readonly type: 'peerFailed' })
  | (OfPeer & { readonly type: 'backToSourceFailed' })
  /** The peer's stream ended without one of the four before. */
  | (OfPeer & { readonly type: 'streamClosed' })
  | (OfPeer & { readonly type: 'peerDeleted' })
  /** The host removed its copy. */
  | { readonly type: 'taskDeleted'; readonly hostId: string; readonly taskId: string }
  | {
      readonly type: 'heldTasks';
      readonly hostId: string;
      readonly tasks: readonly HeldTask[];
      readonly completeList: boolean;
    }
  | {
      readonly type: 'digestsReported';
      readonly hostId: string;
      readonly taskId: string;
      readonly report: DigestReport;
    }
  | { readonly type: 'digestsWatched'; readonly hostId: string; readonly taskId: string }
  | { readonly type: 'digestsUnwatched'; readonly hostId: string; readonly taskId: string }
  | (OfPeer & { readonly type: 'badParentReported'; readonly parentId: string })
  | { readonly type: 'wholeDigestMismatch'; readonly hostId: string; readonly taskId: string }
  /** The seed's answer to a trigger began or went on. */
  | { readonly type: 'seedTriggerProgressed'; readonly taskId: string; readonly seedHostId: string }
  /** `error` undefined: the seed has what it was asked for. */
  | {
      readonly type: 'seedTriggerEnded';
      readonly taskId: string;
      readonly seedHostId: string;
      readonly error: ErrorCode | undefined;
    }
  | { readonly type: 'tick' };
