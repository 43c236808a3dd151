import { commonV2, durationFromMs, type Received, type Sent, type schedulerV2, timestampFromMs } from '@pantala/api';
import { PantalaError } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { DownloadRequest } from '../contract.ts';
import type { ServerAddress } from '../options.ts';
import type { Announcement } from './announcement.ts';
import type { DigestListener, SchedulerLink } from './link.ts';

/** A peer that the scheduler offers as a parent. */
export interface Candidate {
  readonly peerId: string;
  readonly hostId: string;
  readonly seed: boolean;
  /** Its upload gRPC service. */
  readonly address: ServerAddress;
}

export interface SessionListener extends DigestListener {
  /** The complete set of parents from now on. */
  parentsOffered(candidates: readonly Candidate[]): void;
  /** The origin may be asked for what is missing. */
  backToSourceGranted(): void;
  /** The scheduler does nothing more for this task. */
  sessionLost(error: PantalaError): void;
}

/** What is wanted of the task, as the scheduler is told. */
export interface Wish {
  readonly request: DownloadRequest;
  /** Set when no more than this is wanted. */
  readonly range: { readonly start: number; readonly length: number } | undefined;
}

const SEED_HOST = 1;
/** Pieces in progress that the scheduler reckons with. */
const CONCURRENT_PIECES = 8;

/** One task's `AnnouncePeer` stream: registered, told of progress, and ended in upstream's order. */
export class SchedulerSession implements AsyncDisposable {
  readonly link: SchedulerLink;
  readonly peerId: string;
  readonly #hostId: string;
  readonly #task: StoredTask;
  readonly #listener: SessionListener;
  readonly #stream: Announcement;
  readonly #reading: Promise<void>;
  readonly #watch: Disposable;
  #started = false;
  #fromSource = false;
  #over = false;
  /** Its holder was said to have everything. */
  #complete = false;

  /** @param stream is this session's from now on */
  constructor(stream: Announcement, hostId: string, peerId: string, task: StoredTask, listener: SessionListener) {
    const { link } = stream;
    this.#stream = stream;
    this.link = link;
    this.peerId = peerId;
    this.#hostId = hostId;
    this.#task = task;
    this.#listener = listener;
    this.#watch = link.watchDigests(task.description.id, listener);
    this.#reading = this.#read();
  }

  register(wish: Wish): void {
    const { request, range } = wish;
    const { geometry } = this.#task;
    this.#send({
      case: 'registerPeerRequest',
      value: {
        download: {
          url: request.url,
          type: commonV2.TaskType.STANDARD,
          digest: this.#task.description.digest,
          tag: request.tag,
          application: request.application,
          priority: priorityOf(request.priority),
          filteredQueryParams: [...(request.filteredQueryParams ?? [])],
          requestHeader: { ...request.requestHeaders },
          ...(request.pieceLength === undefined ? {} : { pieceLength: BigInt(request.pieceLength) }),
          ...(request.contentForTaskId === undefined ? {} : { contentForCalculatingTaskId: request.contentForTaskId }),
          ...(range === undefined ? {} : { range: { start: BigInt(range.start), length: BigInt(range.length) } }),
          prefetch: range === undefined && request.prefetch === true,
          disableBackToSource: request.disableBackToSource ?? false,
          needBackToSource: request.needBackToSource ?? false,
          concurrentPieceCount: CONCURRENT_PIECES,
          actualContentLength: BigInt(geometry.contentLength),
          actualPieceLength: BigInt(geometry.pieceLength),
          actualPieceCount: BigInt(geometry.pieceCount),
          enableTaskIdBasedBlobDigest: true,
        },
      },
    });
  }

  pieceFinished(piece: number, parentId: string | undefined, cost: number): void {
    const range = this.#task.geometry.pieceRange(piece);
    const message = {
      piece: {
        number: piece,
        ...(parentId === undefined ? {} : { parentId }),
        offset: BigInt(range.start),
        length: BigInt(range.end - range.start),
        trafficType: parentId === undefined ? commonV2.TrafficType.BACK_TO_SOURCE : commonV2.TrafficType.REMOTE_PEER,
        cost: durationFromMs(Math.max(1, Math.round(cost))),
        createdAt: timestampFromMs(Date.now()),
      },
    };
    if (parentId === undefined) this.#send({ case: 'downloadPieceBackToSourceFinishedRequest', value: message });
    else this.#send({ case: 'downloadPieceFinishedRequest', value: message });
  }

  /** That parent gave wrong bytes, and is never to be offered again. */
  badParent(parentId: string, reason: string): void {
    const taskId = this.#task.description.id;
    this.link.send({ case: 'reportBadParent', value: { taskId, peerId: this.peerId, parentId, reason } });
  }

  wholeDigestMismatch(): void {
    const taskId = this.#task.description.id;
    this.link.send({ case: 'reportWholeDigestMismatch', value: { taskId, peerId: this.peerId } });
  }

  /** Asks for other parents than these. */
  reschedule(bad: readonly string[], description: string): void {
    this.#send({
      case: 'reschedulePeerRequest',
      value: { candidateParents: bad.map((id) => ({ id })), description },
    });
  }

  /** Everything is held and right. */
  finished(): void {
    this.#complete = true;
    if (!this.#started && !this.#fromSource) this.#start();
    if (this.#fromSource && !this.#started) this.#send({ case: 'downloadPeerBackToSourceFinishedRequest', value: {} });
    else this.#send({ case: 'downloadPeerFinishedRequest', value: {} });
    this.#finish();
  }

  failed(description: string): void {
    const value = { description };
    if (this.#fromSource) this.#send({ case: 'downloadPeerBackToSourceFailedRequest', value });
    else this.#send({ case: 'downloadPeerFailedRequest', value });
    this.#finish();
  }

  /** Ends the stream; without `finished` or `failed` before it, the peer stays known as the holder of a part. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#finish();
    const late = setTimeout(() => this.#stream[Symbol.dispose](), END_TIMEOUT);
    await this.#reading;
    clearTimeout(late);
  }

  #finish(): void {
    this.#over = true;
    this.#stream.requests.end();
    this.#watch[Symbol.dispose]();
  }

  async #read(): Promise<void> {
    let error = new PantalaError('unavailable', `${this.link.name} ended the announcement`);
    // Whether what was sent last has arrived is known by an orderly end alone.
    let broken = false;
    try {
      for await (const { response } of this.#stream.responses) {
        if (this.#over) continue;
        this.#received(response);
      }
    } catch (thrown) {
      error = PantalaError.from(thrown);
      broken = true;
    }
    if (this.#over && !(broken && this.#complete)) return;
    this.#finish();
    this.#listener.sessionLost(error);
  }

  #received(response: Received<typeof schedulerV2.AnnouncePeerResponseSchema>['response']): void {
    if (response.case === 'normalTaskResponse') {
      this.#start();
      this.#listener.parentsOffered(response.value.candidateParents.flatMap(candidate));
    } else if (response.case === 'needBackToSourceResponse') {
      if (!this.#fromSource) this.#send({ case: 'downloadPeerBackToSourceStartedRequest', value: {} });
      this.#fromSource = true;
      this.#listener.backToSourceGranted();
    }
  }

  #start(): void {
    if (this.#started) return;
    this.#started = true;
    this.#send({ case: 'downloadPeerStartedRequest', value: {} });
  }

  #send(request: Sent<typeof schedulerV2.AnnouncePeerRequestSchema>['request']): void {
    const taskId = this.#task.description.id;
    this.#stream.requests.push({ hostId: this.#hostId, taskId, peerId: this.peerId, ...(request ? { request } : {}) });
  }
}

/** Milliseconds that the scheduler has to end a stream that we have ended. */
const END_TIMEOUT = 500;

function priorityOf(level: number | undefined): commonV2.Priority {
  const known = Object.values(commonV2.Priority);
  return known.find((priority) => priority === level) ?? commonV2.Priority.LEVEL0;
}

function candidate(peer: Received<typeof commonV2.PeerSchema>): Candidate[] {
  const { host } = peer;
  if (host === undefined) return [];
  return [
    { peerId: peer.id, hostId: host.id, seed: host.type === SEED_HOST, address: { host: host.ip, port: host.port } },
  ];
}
