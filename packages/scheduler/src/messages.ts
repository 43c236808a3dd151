import { commonV2, create, durationFromMs, durationMs, pantalaV1, timestampFromMs } from '@pantala/api';
import type {
  DigestNews,
  DigestReport,
  HeldTask,
  HostFacts,
  Peer,
  Task,
  TaskFacts,
  WantedRange,
} from '@pantala/scheduling';

/** What is known of a task and how its origin is reached, from a registration. */
export function factsOfDownload(taskId: string, download: commonV2.Download): TaskFacts {
  return {
    contentLength: optionalNumber(download.actualContentLength),
    pieceLength: optionalNumber(download.actualPieceLength) ?? optionalNumber(download.pieceLength),
    digest: download.digest ?? blobDigest(taskId, download.url),
    origin: download,
  };
}

/** A blob's task has the blob's own digest as its id. */
function blobDigest(taskId: string, url: string): string | undefined {
  return url.includes(`/blobs/sha256:${taskId}`) ? `sha256:${taskId}` : undefined;
}

export function factsOfHost(host: commonV2.Host, intervalMs: number): HostFacts {
  return {
    id: host.id,
    seed: host.type !== 0,
    idc: host.network?.idc ?? '',
    location: host.network?.location ?? '',
    disableShared: host.disableShared,
    announceIntervalMs: intervalMs,
  };
}

export function rangeOf(range: commonV2.Range | undefined): WantedRange | undefined {
  if (range === undefined || range.length === 0n) return undefined;
  return { start: Number(range.start), length: Number(range.length) };
}

export function costOf(piece: commonV2.Piece): number {
  return piece.cost === undefined ? 0 : durationMs(piece.cost);
}

export function heldTaskOf(held: pantalaV1.HeldTask): HeldTask {
  const contentLength = Number(held.contentLength);
  const pieceLength = Number(held.pieceLength);
  const known = held.blockCount > 0 && pieceLength > 0;
  return {
    taskId: held.taskId,
    peerId: held.peerId,
    blockCount: held.blockCount,
    facts: {
      contentLength: known ? contentLength : undefined,
      pieceLength: known ? pieceLength : undefined,
      digest: held.digest === '' ? blobDigest(held.taskId, held.url) : held.digest,
    },
    report: known ? { contentLength, pieceLength, pieces: held.pieces, blocks: [] } : undefined,
  };
}

export function reportOf(report: pantalaV1.ReportDigests): DigestReport {
  return {
    contentLength: Number(report.contentLength),
    pieceLength: Number(report.pieceLength),
    pieces: report.pieces,
    blocks: report.blocks.flatMap(({ run, digests }) =>
      run === undefined ? [] : [{ first: run.first, count: run.count, digests }],
    ),
  };
}

export function newsMessage(news: DigestNews): pantalaV1.DigestNews {
  return create(pantalaV1.DigestNewsSchema, {
    taskId: news.taskId,
    contentLength: BigInt(news.contentLength),
    pieceLength: BigInt(news.pieceLength),
    authority: news.confirmed ? pantalaV1.Authority.CONFIRMED : pantalaV1.Authority.UNCONFIRMED,
    pieces: news.pieces.map(({ number, digest }) => ({ number, digest })),
    blocks: news.blocks.map(({ first, count, digests }) => ({ run: { first, count }, digests })),
  });
}

/** What children and StatPeer are told of a host: how to reach it, without its load. */
export function hostCard(host: commonV2.Host): commonV2.Host {
  return create(commonV2.HostSchema, {
    id: host.id,
    type: host.type,
    hostname: host.hostname,
    ip: host.ip,
    port: host.port,
    downloadPort: host.downloadPort,
    os: host.os,
    platform: host.platform,
    schedulerClusterId: host.schedulerClusterId,
    disableShared: host.disableShared,
    proxyPort: host.proxyPort,
    name: host.name,
    ...(host.network === undefined ? {} : { network: host.network }),
  });
}

export function taskMessage(task: Task): commonV2.Task {
  const origin = originOf(task);
  const pieces = task.pieceCount ?? 0;
  return create(commonV2.TaskSchema, {
    id: task.id,
    url: origin?.url ?? '',
    type: origin?.type ?? 0,
    filteredQueryParams: origin?.filteredQueryParams ?? [],
    contentLength: BigInt(task.contentLength ?? 0),
    pieceCount: pieces,
    sizeScope: sizeScope(task.contentLength, pieces),
    state: task.state,
    peerCount: task.peers.size,
    hasAvailablePeer: task.suppliers.size > 0,
    createdAt: wallTime(task.createdAt),
    updatedAt: wallTime(task.updatedAt),
    ...(task.digest === undefined ? {} : { digest: task.digest }),
    ...(origin?.tag === undefined ? {} : { tag: origin.tag }),
    ...(origin?.application === undefined ? {} : { application: origin.application }),
  });
}

export function peerMessage(peer: Peer, host: commonV2.Host | undefined, task: commonV2.Task): commonV2.Peer {
  return create(commonV2.PeerSchema, {
    id: peer.id,
    state: peer.state,
    task,
    // Upstream's validators want it in every message.
    cost: durationFromMs(Math.max(0, Math.round(peer.updatedAt - peer.createdAt))),
    needBackToSource: peer.granted,
    createdAt: wallTime(peer.createdAt),
    updatedAt: wallTime(peer.updatedAt),
    ...(host === undefined ? {} : { host }),
    ...(peer.range === undefined
      ? {}
      : { range: { start: BigInt(peer.range.start), length: BigInt(peer.range.length) } }),
  });
}

/** The latest registration's way to the origin. */
export function originOf(task: Task): commonV2.Download | undefined {
  return task.origin as commonV2.Download | undefined;
}

/** The core's times count from the start of the process. */
function wallTime(monotonic: number) {
  return timestampFromMs(Math.round(performance.timeOrigin + monotonic));
}

/** Upstream's classes: at most 128 bytes are tiny, one piece is small. */
function sizeScope(contentLength: number | undefined, pieces: number): commonV2.SizeScope {
  if (contentLength === 0) return commonV2.SizeScope.EMPTY;
  if (contentLength !== undefined && contentLength <= 128) return commonV2.SizeScope.TINY;
  return pieces === 1 ? commonV2.SizeScope.SMALL : commonV2.SizeScope.NORMAL;
}

function optionalNumber(value: bigint | undefined): number | undefined {
  if (value === undefined || value > BigInt(Number.MAX_SAFE_INTEGER)) return undefined;
  return Number(value);
}
