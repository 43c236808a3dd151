import { createHash } from 'node:crypto';
import { pantalaV1, type ServedService, serve } from '@pantala/api';
import { lengthOf, PantalaError, throwIfAborted } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { ServiceContext } from './grpc/context.ts';
import { downloadLocally } from './grpc/local-service.ts';

/** Bytes read at once for a digest: larger reads gain nothing from the page cache. */
const READ_LENGTH = 1024 * 1024;

/** `pantala.v1.LocalStore`: what the store holds and what it costs to fill, for programs of the same machine. */
export function localStoreService(context: ServiceContext): ServedService {
  const { store } = context;
  return serve(pantalaV1.LocalStore, {
    async *listTasks() {
      for (const task of store.tasks()) yield described(task);
    },
    async statTask({ taskId, computeSha256 }, { signal }) {
      const task = store.get(taskId);
      if (task === undefined) throw new PantalaError('not-found', `task ${taskId} is not in the store`);
      const held = [...task.blocks.runs(true)];
      return { ...described(task), held, sha256: computeSha256 ? await sha256Of(task, signal) : '' };
    },
    async *downloadTask(request, call) {
      for await (const { response, traffic } of downloadLocally(context, request, call)) {
        const counts = {
          originBytes: BigInt(traffic.originBytes),
          peerBytes: BigInt(traffic.peerBytes),
          localBytes: BigInt(traffic.localBytes),
        };
        yield response === undefined ? counts : { response, ...counts };
      }
    },
  });
}

function described(task: StoredTask) {
  const { description, geometry, blocks } = task;
  let heldBytes = 0;
  for (const run of blocks.runs(true)) heldBytes += lengthOf(geometry.runRange(run));
  return {
    taskId: description.id,
    url: description.url,
    digest: description.digest ?? '',
    contentLength: BigInt(description.contentLength),
    pieceLength: BigInt(description.pieceLength),
    heldBytes: BigInt(heldBytes),
    complete: task.complete,
    createdAtMs: BigInt(Math.round(task.createdAt)),
    completedAtMs: BigInt(Math.round(task.completedAt ?? 0)),
  };
}

async function sha256Of(task: StoredTask, signal: AbortSignal): Promise<string> {
  const { id, contentLength } = task.description;
  if (!task.complete) {
    throw new PantalaError('failed-precondition', `task ${id} is not complete, so it has no digest yet`);
  }
  const hash = createHash('sha256');
  for (let start = 0; start < contentLength; start += READ_LENGTH) {
    throwIfAborted(signal);
    hash.update(await task.read({ start, end: Math.min(start + READ_LENGTH, contentLength) }));
  }
  return hash.digest('hex');
}
