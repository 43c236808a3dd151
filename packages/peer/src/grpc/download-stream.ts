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
  const finished = (range: ByteRange, content: Buffer | undefined): Response => ({
    ...envelope,
    response: { case: 'downloadPieceFinishedResponse', value: { piece: pieceMessage(task, range, content) } },
  });
  /** The end of what one message tells of the piece at `from`. */
  const endOfPart = (from: number) => {
    const piece = task.geometry.pieceRange(Math.floor(from / task.description.pieceLength));
    return Math.min(piece.end, wanted.end, options.withContent ? from + CONTENT_PART_LENGTH : piece.end);
  };
  let start = wanted.start;
  try {
    for await (const extent of open.extents(wanted, { signal: options.signal })) {
      for (let end = endOfPart(start); start < end && end <= extent.end; end = endOfPart(start)) {
        yield finished({ start, end }, options.withContent ? await task.read({ start, end }) : undefined);
        start = end;
      }
    }
  } catch (error) {
    if (!options.withContent || PantalaError.from(error).code !== 'disk-full') throw error;
    // Whoever takes the bytes from here needs no room in the store.
    for await (const chunk of open.direct({ start, end: wanted.end }, { signal: options.signal })) {
      // A copy: the chunk is ours until the next one only, and messages may wait in the stream.
      for (let content = Buffer.from(chunk); content.length > 0; ) {
        const end = Math.min(endOfPart(start), start + content.length);
        yield finished({ start, end }, content.subarray(0, end - start));
        content = content.subarray(end - start);
        start = end;
      }
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
