import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import {
  commonV2,
  createClient,
  type dfdaemonV2,
  durationFromMs,
  pantalaV1,
  type Received,
  type Sent,
} from '@pantala/api';
import { PantalaError } from '@pantala/base';
import { localAddress, reaching } from '../local-peer.ts';

/** What to download, and where to. */
export interface DownloadOrder {
  readonly url: string;
  /** Absolute. */
  readonly output: string;
  /** The peer's unix socket. */
  readonly endpoint: string;
  readonly digest: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly tag: string | undefined;
  readonly application: string | undefined;
  readonly priority: commonV2.Priority;
  readonly filteredQueryParams: readonly string[];
  readonly pieceLength: number | undefined;
  readonly contentForTaskId: string | undefined;
  readonly disableBackToSource: boolean;
  /** The bytes come through the socket and are written here; else the peer writes the file. */
  readonly transfer: boolean;
  readonly forceHardLink: boolean;
  readonly overwrite: boolean;
  /** Milliseconds. */
  readonly timeout: number;
}

/** Bytes so far, by where they came from. */
export interface DownloadCount {
  /** Of the whole content. */
  readonly bytes: number;
  readonly received: number;
  readonly originBytes: number;
  readonly peerBytes: number;
  /** Held by the peer before they were asked for. */
  readonly localBytes: number;
}

/** A piece with its content as it travels through the socket: the largest piece and room for its envelope. */
const MAX_PIECE_MESSAGE = 65 * 1024 * 1024;

type Piece = Received<typeof commonV2.PieceSchema>;

/**
 * Downloads through the peer on this machine. The output is there only when it is whole.
 *
 * @throws what the peer says: `origin`, `disk-full`, `data-loss`, …; `unavailable` when none answers on the socket
 */
export async function download(
  order: DownloadOrder,
  options: { readonly signal: AbortSignal; readonly progress: (count: DownloadCount) => void },
): Promise<DownloadCount> {
  using client = createClient(pantalaV1.LocalStore, localAddress(order.endpoint), {
    maxMessageLength: MAX_PIECE_MESSAGE,
  });
  await using sink = order.transfer ? await FileSink.create(order) : undefined;
  let count: DownloadCount = { bytes: 0, received: 0, originBytes: 0, peerBytes: 0, localBytes: 0 };
  let done = false;
  await reaching(order.endpoint, async () => {
    const call = client.downloadTask(requestOf(order), { signal: options.signal, deadline: order.timeout });
    for await (const { response, originBytes, peerBytes, localBytes } of call) {
      count = {
        ...count,
        originBytes: Number(originBytes),
        peerBytes: Number(peerBytes),
        localBytes: Number(localBytes),
      };
      const news = response?.response;
      if (news === undefined) done = true;
      else if (news.case === 'downloadTaskStartedResponse') {
        count = { ...count, bytes: Number(news.value.contentLength) };
      } else if (news.case === 'downloadPieceFinishedResponse' && news.value.piece !== undefined) {
        const { piece } = news.value;
        await sink?.write(piece);
        count = { ...count, received: count.received + Number(piece.length) };
      }
      options.progress(count);
    }
  });
  if (!done || count.received < count.bytes) {
    throw new PantalaError('data-loss', `the peer ended the download of ${order.url} after ${count.received} bytes`);
  }
  await sink?.commit();
  return count;
}

function requestOf(order: DownloadOrder): Sent<typeof dfdaemonV2.DownloadTaskRequestSchema> {
  const { digest, tag, application, pieceLength, contentForTaskId } = order;
  return {
    download: {
      url: order.url,
      type: commonV2.TaskType.STANDARD,
      priority: order.priority,
      filteredQueryParams: [...order.filteredQueryParams],
      requestHeader: { ...order.headers },
      timeout: durationFromMs(order.timeout),
      disableBackToSource: order.disableBackToSource,
      needPieceContent: order.transfer,
      forceHardLink: order.forceHardLink,
      overwrite: order.overwrite,
      enableTaskIdBasedBlobDigest: true,
      ...(order.transfer ? {} : { outputPath: order.output }),
      ...(digest === undefined ? {} : { digest }),
      ...(tag === undefined ? {} : { tag }),
      ...(application === undefined ? {} : { application }),
      ...(pieceLength === undefined ? {} : { pieceLength: BigInt(pieceLength) }),
      ...(contentForTaskId === undefined ? {} : { contentForCalculatingTaskId: contentForTaskId }),
    },
  };
}

/** A file that appears under its name when it is whole, and leaves nothing behind otherwise. */
class FileSink implements AsyncDisposable {
  readonly #file: FileHandle;
  readonly #temporary: string;
  readonly #output: string;

  private constructor(file: FileHandle, temporary: string, output: string) {
    this.#file = file;
    this.#temporary = temporary;
    this.#output = output;
  }

  static async create(order: DownloadOrder): Promise<FileSink> {
    const temporary = `${order.output}.${process.pid}.part`;
    return new FileSink(await open(temporary, 'wx', 0o644), temporary, order.output);
  }

  /** @throws `data-loss` for a piece without its content */
  async write(piece: Piece): Promise<void> {
    const content = piece.content ?? new Uint8Array();
    if (BigInt(content.length) !== piece.length) {
      throw new PantalaError('data-loss', `piece ${piece.number} came with ${content.length} of ${piece.length} bytes`);
    }
    for (let done = 0; done < content.length; ) {
      const { bytesWritten } = await this.#file.write(
        content,
        done,
        content.length - done,
        Number(piece.offset) + done,
      );
      done += bytesWritten;
    }
  }

  async commit(): Promise<void> {
    await rename(this.#temporary, this.#output);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
    await rm(this.#temporary, { force: true });
  }
}
