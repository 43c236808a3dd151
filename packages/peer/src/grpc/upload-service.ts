import { dfdaemonV2, type Received, type Sent, type ServedService, type ServerCall, serve } from '@pantala/api';
import { monotonicNow, PantalaError, peerId, sleep, taskSizeLevel } from '@pantala/base';
import { heldTask, removeTask, type ServiceContext, sharedTask } from './context.ts';
import { downloadStream } from './download-stream.ts';
import { downloadRequest, localTaskMessage, taskMessage, wantedRange } from './messages.ts';
import { syncPieces } from './sync-pieces.ts';

type DownloadTaskRequest = Received<typeof dfdaemonV2.DownloadTaskRequestSchema>;
type DownloadTaskResponse = Sent<typeof dfdaemonV2.DownloadTaskResponseSchema>;

/** Milliseconds between two words about the network's load. */
const SYNC_HOST_INTERVAL = 1_000;

/** Downloads under way for schedulers and other peers; each holds a stream, an open task and origin connections. */
const MAX_ORDERS = 1024;

/** `dfdaemon.v2.DfdaemonUpload`: what schedulers and other peers may ask of this one. */
export function uploadService(context: ServiceContext): ServedService {
  const { store, metrics } = context;
  let orders = 0;
  return serve(dfdaemonV2.DfdaemonUpload, {
    async *downloadTask(request, call) {
      if (orders >= MAX_ORDERS) throw new PantalaError('resource-exhausted', `${MAX_ORDERS} downloads are under way`);
      orders++;
      try {
        yield* downloadForOthers(context, request, call);
      } finally {
        orders--;
      }
    },
    statTask: ({ taskId }) => metrics.stats.of(async () => taskMessage(heldTask(store, taskId))),
    statLocalTask: ({ taskId }) => metrics.localStats.of(async () => localTaskMessage(heldTask(store, taskId))),
    listTaskEntries: () =>
      metrics.entryLists.of(async () => {
        throw new PantalaError('unimplemented', 'directories are not listed: give the URLs of single files');
      }),
    deleteTask: ({ taskId }) =>
      metrics.deletes.of(async () => {
        await removeTask(context, taskId);
        return {};
      }),
    syncPieces({ taskId, interestedPieceNumbers }, { signal }) {
      const address = { ip: context.identity.ip, tcpPort: context.piecePort };
      return syncPieces(sharedTask(context, taskId), interestedPieceNumbers, address, signal);
    },
    async *syncHost(_, { signal }) {
      while (!signal.aborted) {
        yield { id: context.hostId, ip: context.identity.ip, network: context.meter.network() };
        await sleep(SYNC_HOST_INTERVAL, signal);
      }
    },
  });
}

/** A scheduler makes this peer (as a rule a seed) fetch something. Nothing is ever written for others but the store. */
async function* downloadForOthers(
  context: ServiceContext,
  { download }: DownloadTaskRequest,
  { signal }: ServerCall,
): AsyncGenerator<DownloadTaskResponse> {
  const { metrics, hostId, identity } = context;
  if (download === undefined) throw new PantalaError('invalid-argument', 'the order is missing');
  metrics.uploadTasks.add();
  metrics.runningUploadTasks.add(1);
  const startedAt = monotonicNow();
  try {
    const swarm = await context.swarm;
    const range = wantedRange(download);
    const request = downloadRequest(download, { reader: 'peer' });
    await using open = await swarm.open(request, { signal, ...(range === undefined ? {} : { range }) });
    yield* downloadStream(open, { hostId, peerId: peerId(identity), range, withContent: false, signal });
    metrics.uploadDuration.observe(monotonicNow() - startedAt, {
      task_type: 'STANDARD',
      task_size_level: `${taskSizeLevel(open.task.geometry.contentLength)}`,
    });
  } catch (error) {
    if (!signal.aborted) metrics.uploadTaskFailures.add();
    throw error;
  } finally {
    metrics.runningUploadTasks.add(-1);
  }
}
