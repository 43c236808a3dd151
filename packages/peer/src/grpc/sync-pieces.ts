import { type dfdaemonV2, MessageQueue, type Sent } from '@pantala/api';
import { type BlockRun, PantalaError } from '@pantala/base';
import type { StoredTask } from '@pantala/store';

type Response = Sent<typeof dfdaemonV2.SyncPiecesResponseSchema>;

/** Pieces that one call may ask for: those of a task of 4 TiB in pieces of 64 MiB. */
const MAX_INTERESTED_PIECES = 65_536;

/** Where the pieces are served. */
export interface PieceAddress {
  readonly ip: string;
  readonly tcpPort: number;
}

/**
 * News of the pieces that somebody is interested in: those that are held whole at once, the others as they land.
 * Ends when each of them was told.
 *
 * @throws `invalid-argument` for pieces that the task has not; `failed-precondition` when the task becomes void
 */
export async function* syncPieces(
  task: StoredTask,
  interested: readonly number[],
  address: PieceAddress,
  signal: AbortSignal,
): AsyncGenerator<Response> {
  const { geometry } = task;
  if (interested.length > MAX_INTERESTED_PIECES) {
    throw new PantalaError('invalid-argument', `at most ${MAX_INTERESTED_PIECES} pieces in one call`);
  }
  const missing = new Set(interested);
  for (const piece of missing) {
    if (piece < geometry.pieceCount) continue;
    throw new PantalaError('invalid-argument', `task ${task.description.id} has no piece ${piece}`);
  }
  const news = new MessageQueue<number>();
  const tell = (piece: number) => {
    if (!missing.has(piece) || !task.blocks.hasAll(geometry.pieceBlocks(piece))) return;
    missing.delete(piece);
    news.push(piece);
    if (missing.size === 0) news.end();
  };
  const tellRun = ({ first, count }: BlockRun) => {
    const last = geometry.pieceOfBlock(first + count - 1);
    for (let piece = geometry.pieceOfBlock(first); piece <= last; piece++) tell(piece);
  };
  using _subscription = task.subscribe((event) => {
    if (event.kind === 'blocks') tellRun(event.run);
    else if (event.kind === 'void') news.fail(new PantalaError('failed-precondition', 'the task is no longer held'));
  });
  const stop = () => news.fail(signal.reason);
  signal.addEventListener('abort', stop, { once: true });
  try {
    for (const piece of missing) tell(piece);
    if (missing.size === 0) news.end();
    for await (const piece of news) {
      const { start, end } = geometry.pieceRange(piece);
      yield { number: piece, offset: BigInt(start), length: BigInt(end - start), ...address };
    }
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
