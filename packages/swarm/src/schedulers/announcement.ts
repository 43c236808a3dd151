import { MessageQueue, type Received, type Sent, type schedulerV2 } from '@pantala/api';
import { PantalaError } from '@pantala/base';
import type { SchedulerLink } from './link.ts';

/**
 * An `AnnouncePeer` stream on which nothing has been said yet: it is opened while the origin is still asked what the
 * content is, so that the registration itself costs no more than a message.
 */
export class Announcement implements Disposable {
  readonly link: SchedulerLink;
  readonly requests = new MessageQueue<Sent<typeof schedulerV2.AnnouncePeerRequestSchema>>();
  readonly responses: AsyncIterable<Received<typeof schedulerV2.AnnouncePeerResponseSchema>>;
  readonly #stop = new AbortController();

  constructor(link: SchedulerLink) {
    this.link = link;
    this.responses = link.client.announcePeer(this.requests, { signal: this.#stop.signal });
  }

  /** Cuts it; what was said before may be lost. */
  [Symbol.dispose](): void {
    this.requests.end();
    this.#stop.abort(new PantalaError('cancelled', 'ended'));
  }
}
