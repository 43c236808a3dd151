import { MessageQueue, type schedulerV2 } from '@pantala/api';
import { type Logger, monotonicNow, PantalaError, taskSizeLevel } from '@pantala/base';
import type { SchedulerEvent } from '@pantala/scheduling';
import type { Engine, PeerAnswers } from './engine.ts';
import { costOf, factsOfDownload, rangeOf } from './messages.ts';
import type { SchedulerMetrics } from './metrics.ts';
import { MAX_BAD_PARENTS, MAX_ID_LENGTH } from './options.ts';

type Request = schedulerV2.AnnouncePeerRequest;
type Ids = { readonly hostId: string; readonly taskId: string; readonly peerId: string };

/** Names of traffic as upstream's metrics have them. */
const TRAFFIC_TYPES = ['BACK_TO_SOURCE', 'REMOTE_PEER', 'LOCAL_PEER'];

/** One download of one peer: its stream, from registration to its end. */
export class PeerStream {
  readonly #engine: Engine;
  readonly #metrics: SchedulerMetrics;
  readonly #logger: Logger;
  readonly #answers: PeerAnswers = new MessageQueue();
  #ids: Ids | undefined;
  /** When parents were asked for, until the answer. */
  #askedAt: number | undefined;
  #registeredAt: number | undefined;
  #labels: Readonly<Record<string, string>> = { priority: '0', task_type: '0', host_type: '0' };

  constructor(engine: Engine, metrics: SchedulerMetrics, logger: Logger) {
    this.#engine = engine;
    this.#metrics = metrics;
    this.#logger = logger;
  }

  /** The answers to what the peer says; ends when the download has. */
  async *serve(requests: AsyncIterable<Request>): AsyncGenerator<schedulerV2.AnnouncePeerResponse, void, undefined> {
    this.#metrics.announcePeer.count();
    void this.#read(requests);
    try {
      for await (const answer of this.#answers) {
        if (this.#askedAt !== undefined) this.#metrics.scheduleDuration.observe(monotonicNow() - this.#askedAt);
        this.#askedAt = undefined;
        yield answer;
      }
    } catch (error) {
      this.#metrics.announcePeer.fail();
      throw error;
    } finally {
      this.#leave();
    }
  }

  async #read(requests: AsyncIterable<Request>): Promise<void> {
    try {
      for await (const request of requests) {
        this.#take(request);
        if (this.#answers.ended) return;
      }
      this.#leave();
      this.#answers.end();
    } catch (error) {
      this.#leave();
      this.#answers.fail(error);
    }
  }

  /** The peer is told to the core as gone, unless its download has ended or another stream has taken over. */
  #leave(): void {
    const ids = this.#ids;
    if (ids === undefined) return;
    this.#ids = undefined;
    if (this.#engine.closePeer(ids.taskId, ids.peerId, this.#answers)) {
      this.#engine.dispatch({ type: 'streamClosed', ...ids });
    }
  }

  #take(message: Request): void {
    const ids = this.#identify(message);
    const { request } = message;
    switch (request.case) {
      case 'registerPeerRequest':
        this.#register(ids, request.value);
        break;
      case 'downloadPeerStartedRequest':
        this.#metrics.peerStarted.count(this.#labels);
        this.#tell({ type: 'peerStarted', ...ids });
        break;
      case 'downloadPeerBackToSourceStartedRequest':
        this.#metrics.backToSourceStarted.count(this.#labels);
        this.#tell({ type: 'backToSourceStarted', ...ids });
        break;
      case 'reschedulePeerRequest':
        this.#askedAt = monotonicNow();
        this.#tell({
          type: 'rescheduled',
          ...ids,
          badParentIds: request.value.candidateParents.slice(0, MAX_BAD_PARENTS).map((parent) => parent.id),
        });
        break;
      case 'downloadPeerFinishedRequest':
        this.#metrics.peerFinished.count(this.#labels);
        this.#observeDuration(ids);
        this.#tell({ type: 'peerFinished', ...ids });
        break;
      case 'downloadPeerBackToSourceFinishedRequest':
        this.#metrics.backToSourceFinished.count(this.#labels);
        this.#observeDuration(ids);
        this.#tell({ type: 'backToSourceFinished', ...ids });
        break;
      case 'downloadPeerFailedRequest':
        this.#metrics.peerFinished.fail(this.#labels);
        this.#tell({ type: 'peerFailed', ...ids });
        break;
      case 'downloadPeerBackToSourceFailedRequest':
        this.#metrics.backToSourceFinished.fail(this.#labels);
        this.#tell({ type: 'backToSourceFailed', ...ids });
        break;
      case 'downloadPieceFinishedRequest':
        this.#pieceFinished(ids, request.value.piece, this.#metrics.pieceFinished);
        break;
      case 'downloadPieceBackToSourceFinishedRequest':
        this.#pieceFinished(ids, request.value.piece, this.#metrics.backToSourcePieceFinished);
        break;
      case 'downloadPieceFailedRequest':
        this.#metrics.pieceFinished.fail(this.#pieceLabels(1));
        this.#tell({ type: 'pieceFailed', ...ids, parentId: request.value.parentId });
        break;
      case 'downloadPieceBackToSourceFailedRequest':
        this.#metrics.backToSourcePieceFinished.fail(this.#pieceLabels(0));
        this.#logger.info('piece from the origin failed', ids);
        break;
      case undefined:
        throw new PantalaError('invalid-argument', 'a message without a request');
    }
  }

  /** A stream is one peer's: the first message says whose. */
  #identify({ hostId, taskId, peerId }: Request): Ids {
    const ids = this.#ids;
    if (ids === undefined) {
      for (const id of [hostId, taskId, peerId]) {
        if (id.length === 0 || id.length > MAX_ID_LENGTH) {
          throw new PantalaError('invalid-argument', `ids have 1 to ${MAX_ID_LENGTH} characters`);
        }
      }
      this.#ids = { hostId, taskId, peerId };
      this.#engine.openPeer(taskId, peerId, this.#answers);
      return this.#ids;
    }
    if (ids.hostId !== hostId || ids.taskId !== taskId || ids.peerId !== peerId) {
      throw new PantalaError('invalid-argument', `a stream is one peer's: ${ids.peerId}, not ${peerId}`);
    }
    return ids;
  }

  #register(ids: Ids, { download }: schedulerV2.RegisterPeerRequest): void {
    if (download === undefined) throw new PantalaError('invalid-argument', 'a registration without a download');
    const host = this.#engine.host(ids.hostId);
    this.#labels = {
      priority: String(download.priority),
      task_type: String(download.type),
      host_type: String(host?.type ?? 0),
    };
    this.#metrics.registerPeer.count(this.#labels);
    this.#askedAt = monotonicNow();
    this.#registeredAt ??= this.#askedAt;
    if (host === undefined) this.#metrics.registerPeer.fail(this.#labels);
    this.#tell({
      type: 'peerRegistered',
      ...ids,
      facts: factsOfDownload(ids.taskId, download),
      range: download.prefetch ? undefined : rangeOf(download.range),
      metadataOnly: download.metadataOnly,
      needBackToSource: download.needBackToSource,
      disableBackToSource: download.disableBackToSource,
    });
  }

  #observeDuration({ taskId }: Ids): void {
    const length = this.#engine.core.task(taskId)?.contentLength;
    if (length === undefined || this.#registeredAt === undefined) return;
    const labels = { task_size_level: `${taskSizeLevel(length)}` };
    this.#metrics.peerDuration.observe(monotonicNow() - this.#registeredAt, labels);
  }

  #pieceFinished(
    ids: Ids,
    piece: Extract<Request['request'], { case: 'downloadPieceFinishedRequest' }>['value']['piece'],
    metric: SchedulerMetrics['pieceFinished'],
  ): void {
    if (piece === undefined) throw new PantalaError('invalid-argument', 'a finished piece without the piece');
    const length = Number(piece.length);
    const fromOrigin = metric === this.#metrics.backToSourcePieceFinished;
    const type = TRAFFIC_TYPES[piece.trafficType ?? (fromOrigin ? 0 : 1)] ?? 'REMOTE_PEER';
    const { task_type = '0', host_type = '0' } = this.#labels;
    metric.count({ traffic_type: type, task_type, host_type });
    this.#metrics.traffic.add(length, { type, task_type, host_type });
    if (this.#metrics.hostTraffic !== undefined) {
      const host = this.#engine.host(ids.hostId);
      const labels = {
        task_type,
        host_type,
        host_id: ids.hostId,
        host_ip: host?.ip ?? '',
        host_name: host?.hostname ?? '',
      };
      this.#metrics.hostTraffic.add(length, { type: 'download', ...labels });
    }
    this.#tell({
      type: 'pieceFinished',
      ...ids,
      length,
      costMs: costOf(piece),
      parentId: fromOrigin || piece.parentId === undefined || piece.parentId === '' ? undefined : piece.parentId,
    });
  }

  #pieceLabels(trafficType: number): Readonly<Record<string, string>> {
    const { task_type = '0', host_type = '0' } = this.#labels;
    return { traffic_type: TRAFFIC_TYPES[trafficType] as string, task_type, host_type };
  }

  #tell(event: SchedulerEvent): void {
    this.#engine.dispatch(event);
  }
}
