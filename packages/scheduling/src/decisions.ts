import type { ErrorCode } from '@pantala/base';
import type { DigestNews } from './digest-book.ts';
import type { WantedRange } from './task.ts';

interface ForPeer {
  readonly taskId: string;
  readonly peerId: string;
}

export interface ParentChoice {
  readonly peerId: string;
  readonly hostId: string;
}

/** What the scheduler does about an event. */
export type Decision =
  | (ForPeer & { readonly type: 'sendParents'; readonly parents: readonly ParentChoice[] })
  | (ForPeer & { readonly type: 'needBackToSource'; readonly description: string })
  | (ForPeer & { readonly type: 'emptyTask' })
  | (ForPeer & { readonly type: 'metadataOnly' })
  /** The peer's stream ends with an error. */
  | (ForPeer & { readonly type: 'failPeer'; readonly code: ErrorCode; readonly message: string })
  /** The peer's stream ends well. */
  | (ForPeer & { readonly type: 'closeStream' })
  | {
      readonly type: 'triggerSeed';
      readonly taskId: string;
      readonly seedHostId: string;
      readonly range: WantedRange | undefined;
      /** Nobody else holds any of it: the seed need not ask before it fetches. */
      readonly needBackToSource: boolean;
    }
  | { readonly type: 'digestNews'; readonly hostIds: readonly string[]; readonly news: DigestNews }
  | { readonly type: 'digestsVoid'; readonly hostIds: readonly string[]; readonly taskId: string }
  | { readonly type: 'heldTasksWanted'; readonly hostId: string }
  /** The host has become the only one there is, or ceased to be. */
  | { readonly type: 'company'; readonly hostId: string; readonly alone: boolean }
  /** Everything about the host was forgotten. */
  | { readonly type: 'hostForgotten'; readonly hostId: string };
