import {
  dfdaemonV2,
  durationMs,
  type Received,
  type Sent,
  type ServedService,
  type ServerCall,
  serve,
} from '@pantala/api';
import { AbortScope, PantalaError, peerId } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { TrafficCount } from '@pantala/swarm';
import { checkChecksum, verified, verifyChecksum } from '../outputs/checksum.ts';
import { OutputFile } from '../outputs/output-file.ts';
import { heldTask, removeTask, type ServiceContext } from './context.ts';
import { downloadStream, within } from './download-stream.ts';
import { downloadRequest, localTaskMessage, traceOf, wantedRange } from './messages.ts';

type DownloadTaskRequest = Received<typeof dfdaemonV2.DownloadTaskRequestSchema>;
type DownloadTaskResponse = Sent<typeof dfdaemonV2.DownloadTaskResponseSchema>;

/** `dfdaemon.v2.DfdaemonDownload`: what programs of this machine ask over the local socket. */
export function localService(context: ServiceContext): ServedService {
  const { store, metrics, schedulers } = context;
  return serve(dfdaemonV2.DfdaemonDownload, {
    async *downloadTask(request, call) {
      for await (const { response } of downloadLocally(context, request, call)) {
        if (response !== undefined) yield response;
      }
    },
    statTask: ({ taskId }, { signal }) => metrics.stats.of(() => schedulers.statTask(taskId, signal)),
    statLocalTask: ({ taskId }) => metrics.localStats.of(async () => localTaskMessage(heldTask(store, taskId))),
    listLocalTasks: () => metrics.lists.of(async () => ({ tasks: Array.from(store.tasks(), localTaskMessage) })),
    listTaskEntries: () =>
      metrics.entryLists.of(async () => {
        throw new PantalaError('unimplemented', 'directories are not listed: give the URLs of single files');
      }),
    deleteTask: ({ taskId }, { signal }) =>
      metrics.deletes.of(async () => {
        await removeTask(context, taskId);
        await schedulers.deleteTask(taskId, signal).catch(ignoreUnknown);
        return {};
      }),
    deleteLocalTask: ({ taskId }) =>
      metrics.localDeletes.of(async () => {
        await removeTask(context, taskId);
        return {};
      }),
    deleteHost: (_, { signal }) =>
      metrics.hostDeletes.of(async () => {
        await schedulers.deleteHost(signal);
        return {};
      }),
  });
}

/** A scheduler that does not know the task, or cannot be reached, has nothing to forget. */
function ignoreUnknown(thrown: unknown): void {
  const { code } = PantalaError.from(thrown);
  if (code !== 'not-found' && code !== 'unavailable') throw thrown;
}

/** News of a download, and where its bytes came from so far. The last one has the final counts alone. */
export interface CountedResponse {
  readonly response: DownloadTaskResponse | undefined;
  readonly traffic: TrafficCount;
}

/** Downloads for a program of this machine. The end tells that the output, where one was asked for, is there. */
export async function* downloadLocally(
  context: ServiceContext,
  { download }: DownloadTaskRequest,
  call: ServerCall,
): AsyncGenerator<CountedResponse> {
  if (download === undefined) throw new PantalaError('invalid-argument', 'the order is missing');
  const { outputPath, digest, needPieceContent, timeout } = download;
  const range = wantedRange(download);
  if (digest) checkChecksum(digest);
  const output = outputPath
    ? await OutputFile.plan(outputPath, {
        partial: range !== undefined,
        overwrite: download.overwrite,
        hardLink: download.forceHardLink,
      })
    : undefined;
  const request = downloadRequest(download, { reader: download.isPrefetch ? 'prefetch' : 'local', ...traceOf(call) });
  using scope = new AbortScope([call.signal], {
    timeout: timeout === undefined ? undefined : durationMs(timeout),
    what: 'the download',
  });
  const { signal } = scope;
  const swarm = await context.swarm;
  try {
    await using open = await swarm.open(request, { signal, ...(range === undefined ? {} : { range }) });
    const { hostId, identity } = context;
    const withContent = needPieceContent && output === undefined;
    const responses = downloadStream(open, { hostId, peerId: peerId(identity), range, withContent, signal });
    try {
      for await (const response of responses) yield { response, traffic: open.traffic };
      // The end of the stream, which comes after this, tells the caller that the file is there.
      await finish(open.task, download, output, signal);
    } catch (error) {
      if (output === undefined || PantalaError.from(error).code !== 'disk-full') throw error;
      // The store is full; the output may well lie on another disk.
      const wanted = within(range, open.task.description.contentLength);
      const chunks = open.direct(wanted, { signal });
      await output.receive(digest && range === undefined ? verified(chunks, digest) : chunks, signal);
    }
    yield { response: undefined, traffic: open.traffic };
  } catch (error) {
    throw signal.aborted ? PantalaError.from(signal.reason) : error;
  }
}

async function finish(
  task: StoredTask,
  download: NonNullable<DownloadTaskRequest['download']>,
  output: OutputFile | undefined,
  signal: AbortSignal,
): Promise<void> {
  const range = wantedRange(download);
  // The swarm itself checks a SHA-256 that the task is known by, before it calls the task complete.
  if (download.digest && range === undefined && download.digest !== task.description.digest) {
    await verifyChecksum(task, download.digest, signal);
  }
  if (output === undefined) return;
  await output.put(task, range === undefined ? undefined : within(range, task.description.contentLength), signal);
}
