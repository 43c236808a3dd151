import { pantalaV1, type ServedService, serve } from '@pantala/api';
import { BLOCK_LENGTH, PantalaError } from '@pantala/base';
import { type ServiceContext, sharedTask } from './context.ts';

/** `pantala.v1.Peer`: what only peers of our own kind say to each other. */
export function peerService(context: ServiceContext): ServedService {
  const { identity, hostId, piecePort } = context;
  return serve(pantalaV1.Peer, {
    async describe() {
      return { tcpPort: piecePort, blockLength: BLOCK_LENGTH, seed: identity.seed, hostId };
    },
    async *watchTask({ taskId, hostId: watcher, bulk }, { signal }) {
      sharedTask(context, taskId);
      const swarm = await context.swarm;
      for await (const news of swarm.watch(taskId, { hostId: watcher, bulk, signal })) {
        yield {
          contentLength: BigInt(news.contentLength),
          pieceLength: BigInt(news.pieceLength),
          held: news.held,
          assigned: news.assigned,
          deferred: news.deferred,
        };
      }
    },
    async openTask(request, { signal }) {
      // Anybody else would fetch from wherever a stranger says.
      if (!identity.seed) throw new PantalaError('failed-precondition', 'this peer is no seed');
      const { url, tag, application, filteredQueryParams, pieceLength, contentForTaskId } = request;
      const swarm = await context.swarm;
      await using open = await swarm.open(
        {
          url,
          requestHeaders: request.requestHeader,
          ...(tag === '' ? {} : { tag }),
          ...(application === '' ? {} : { application }),
          ...(filteredQueryParams.length === 0 ? {} : { filteredQueryParams }),
          ...(pieceLength === 0n ? {} : { pieceLength: Number(pieceLength) }),
          ...(contentForTaskId === '' ? {} : { contentForTaskId }),
          reader: 'peer',
        },
        { signal },
      );
      const { id, contentLength, pieceLength: length } = open.task.description;
      if (request.taskId !== '' && request.taskId !== id) {
        throw new PantalaError(
          'invalid-argument',
          `the order is that of task ${id}, not ${request.taskId.slice(0, 64)}`,
        );
      }
      return {
        contentLength: BigInt(contentLength),
        pieceLength: BigInt(length),
        responseHeader: { ...open.responseHeaders },
      };
    },
  });
}
