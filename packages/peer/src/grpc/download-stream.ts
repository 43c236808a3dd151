import type { dfdaemonV2, Sent } from '@pantala/api';
import { type ByteRange, lengthOf, PantalaError } from '@pantala/base';
import type { OpenTask } from '@pantala/swarm';
import { pieceMessage, rangeMessage } from './messages.ts';

type Response = Sent<typeof dfdaemonV2.DownloadTaskResponseSchema>;

/** Bytes of content in one message: most gRPC clients take no more than 4 MiB, and memory must not grow with pieces. */
const CONTENT_PART_LENGTH = 1024 * 1024;

export interface DownloadStreamOptions {
  readonly hostId: string;
  readonly peerId: string;
  /** The bytes wanted; everything when undefined. */
  readonly range: ByteRange | undefined;
  /** Send the bytes too, not only the news that they are here. */
  readonly withContent: boolean;
  readonly signal: AbortSignal;
}

/** The answer of DownloadTask: what the content is, then its pieces in order as they are held. */
export async function* downloadStream(open: OpenTask, options: DownloadStreamOptions): AsyncGenerator<Response> {
  const { task } = open;
  const { contentLength } = task.description;
  const wanted = within(options.range, contentLength);
  const envelope = { hostId: options.hostId, taskId: task.description.id, peerId: options.peerId };
  yield {
    ...envelope,
    response: {
      case: 'downloadTaskStartedResponse',
      value: {
        contentLength: BigInt(contentLength),
        responseHeader: { ...open.responseHeaders },
        isFinished: open.hit,
        ...(options.range === undefined ? {} : { range: rangeMessage(wanted) }),
      },
    },
  };
  const limit = options.withContent ? CONTENT_PART_LENGTH : Number.POSITIVE_INFINITY;
  let start = wanted.start;
  for await (const extent of open.extents(wanted, { signal: options.signal })) {
    while (start < extent.end) {
      const piece = task.geometry.pieceRange(Math.floor(start / task.description.pieceLength));
      const end = Math.min(piece.end, wanted.end, start + limit);
      if (end > extent.end) break;
      const content = options.withContent ? await task.read({ start, end }) : undefined;
      const value = { piece: pieceMessage(task, { start, end }, content) };
      yield { ...envelope, response: { case: 'downloadPieceFinishedResponse', value } };
      start = end;
    }
  }
}

/** @throws `out-of-range` */
export function within(range: ByteRange | undefined, contentLength: number): ByteRange {
  if (range === undefined) return { start: 0, end: contentLength };
  const cut = { start: range.start, end: Math.min(range.end, contentLength) };
  if (lengthOf(cut) > 0) return cut;
  throw new PantalaError('out-of-range', `the content has ${contentLength} bytes, none from ${range.start} on`);
}
