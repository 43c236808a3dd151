import type { pantalaV1, Sent } from '@pantala/api';
import type { StoredTask } from '@pantala/store';

/** What schedulers are told of a task that this node holds, with the digests of its whole pieces. */
export function heldTask(task: StoredTask, peerId: string | undefined): Sent<typeof pantalaV1.HeldTaskSchema> {
  const { geometry, description } = task;
  const pieces: { number: number; digest: Uint8Array }[] = [];
  for (let number = 0; number < geometry.pieceCount; number++) {
    const digest = task.pieceDigest(number);
    if (digest !== undefined) pieces.push({ number, digest });
  }
  return {
    taskId: description.id,
    contentLength: BigInt(geometry.contentLength),
    pieceLength: BigInt(geometry.pieceLength),
    blockCount: task.blocks.count,
    url: description.url,
    digest: description.digest ?? '',
    pieces,
    peerId: peerId ?? '',
  };
}
