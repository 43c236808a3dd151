import {
  commonV2,
  type dfdaemonV2,
  durationFromMs,
  type Received,
  type Sent,
  type ServerCall,
  timestampFromMs,
} from '@pantala/api';
import { type ByteRange, PantalaError } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { DownloadRequest } from '@pantala/swarm';

type Download = Received<typeof commonV2.DownloadSchema>;

/**
 * An order as the swarm takes it.
 *
 * @throws `invalid-argument`; `unimplemented` for what other surfaces or later versions are for
 */
export function downloadRequest(
  download: Download,
  given: Pick<DownloadRequest, 'reader' | 'traceId'>,
): DownloadRequest {
  const { url, tag, application, pieceLength, contentForCalculatingTaskId } = download;
  if (download.type !== commonV2.TaskType.STANDARD) {
    throw new PantalaError('unimplemented', 'only standard tasks are downloaded here');
  }
  if (download.objectStorage ?? download.hdfs ?? download.huggingFace ?? download.modelScope) {
    throw new PantalaError('unimplemented', 'object stores and model hubs are not served: give an http or https URL');
  }
  if (url === '') throw new PantalaError('invalid-argument', 'the order names no URL');
  return {
    url,
    requestHeaders: lowerCased(download.requestHeader),
    ...(tag ? { tag } : {}),
    ...(application ? { application } : {}),
    // The field cannot tell "no filter" from "not said"; upstream's clients always send their list.
    ...(download.filteredQueryParams.length > 0 ? { filteredQueryParams: download.filteredQueryParams } : {}),
    ...(pieceLength === undefined ? {} : { pieceLength: Number(pieceLength) }),
    ...(contentForCalculatingTaskId ? { contentForTaskId: contentForCalculatingTaskId } : {}),
    priority: download.priority,
    disableBackToSource: download.disableBackToSource,
    needBackToSource: download.needBackToSource,
    prefetch: download.prefetch,
    ...given,
  };
}

/** The trace that a call belongs to (https://www.w3.org/TR/trace-context/#traceparent-header). */
export function traceOf({ metadata }: ServerCall): Pick<DownloadRequest, 'traceId'> {
  const [traceparent] = metadata.get('traceparent');
  const traceId = /^[0-9a-f]{2}-([0-9a-f]{32})-/.exec(String(traceparent))?.[1];
  return traceId === undefined || /^0+$/.test(traceId) ? {} : { traceId };
}

/** Headers of one request that are no part of what identifies its content; the origin client sets its own. */
const NOT_FOR_TASKS = new Set(['range', 'host', 'connection', 'proxy-authorization']);

function lowerCased(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers)
      .map(([name, value]) => [name.toLowerCase(), value] as const)
      .filter(([name]) => !NOT_FOR_TASKS.has(name) && !name.startsWith('x-dragonfly-')),
  );
}

/** The bytes that an order asks for, before the length of the content is known. */
export function wantedRange(download: Download): ByteRange | undefined {
  const { range } = download;
  if (range === undefined) return undefined;
  const start = Number(range.start);
  const end = start + Number(range.length);
  if (!Number.isSafeInteger(end) || end <= start) {
    throw new PantalaError('invalid-argument', `a range of ${range.length} bytes from ${range.start} is none`);
  }
  return { start, end };
}

export function rangeMessage({ start, end }: ByteRange): Sent<typeof commonV2.RangeSchema> {
  return { start: BigInt(start), length: BigInt(end - start) };
}

/** A task as its holder knows it. */
export function taskMessage(task: StoredTask): Sent<typeof commonV2.TaskSchema> {
  const { description, geometry } = task;
  return {
    id: description.id,
    type: commonV2.TaskType.STANDARD,
    url: description.url,
    ...(description.digest === undefined ? {} : { digest: description.digest }),
    ...(description.tag === undefined ? {} : { tag: description.tag }),
    ...(description.application === undefined ? {} : { application: description.application }),
    contentLength: BigInt(description.contentLength),
    pieceCount: geometry.pieceCount,
    sizeScope: description.contentLength === 0 ? commonV2.SizeScope.EMPTY : commonV2.SizeScope.NORMAL,
    state: task.complete ? 'Succeeded' : 'Running',
    peerCount: 1,
    hasAvailablePeer: true,
    createdAt: timestampFromMs(task.createdAt),
    updatedAt: timestampFromMs(task.completedAt ?? task.createdAt),
  };
}

export function localTaskMessage(task: StoredTask): Sent<typeof dfdaemonV2.StatLocalTaskResponseSchema> {
  const { description } = task;
  return {
    taskId: description.id,
    pieceLength: BigInt(description.pieceLength),
    contentLength: BigInt(description.contentLength),
    responseHeader: { ...description.responseHeaders },
    createdAt: timestampFromMs(task.createdAt),
    updatedAt: timestampFromMs(task.completedAt ?? task.createdAt),
    ...(task.completedAt === undefined ? {} : { finishedAt: timestampFromMs(task.completedAt) }),
  };
}

/** A piece, or the part of it that was asked for. */
export function pieceMessage(
  task: StoredTask,
  range: ByteRange,
  content: Buffer | undefined,
): Sent<typeof commonV2.PieceSchema> {
  return {
    number: Math.floor(range.start / task.description.pieceLength),
    offset: BigInt(range.start),
    length: BigInt(range.end - range.start),
    ...(content === undefined ? {} : { content }),
    cost: durationFromMs(0),
    createdAt: timestampFromMs(Date.now()),
  };
}
