import type { pantalaV1, Received } from '@pantala/api';
import { pantalaV1 as wire } from '@pantala/api';
import { BLOCK_LENGTH, type BlockRun, DIGEST_LENGTH, type Geometry, lengthOf, PantalaError } from '@pantala/base';
import type { StoredTask, Trust } from '@pantala/store';
import { type Authority, digestBlocks, Verification } from './verification.ts';

/** Bytes of one task that wait in memory for their digests; what comes beyond it is asked for again later. */
export const MAX_WAITING_LENGTH = 8 * 1024 * 1024;

interface WaitingBlocks {
  readonly parent: string;
  readonly run: BlockRun;
  readonly data: Buffer;
  readonly digests: Buffer;
}

export interface IntakeListener {
  /** A parent's blocks are on disk. */
  storedFromParent(parent: string, run: BlockRun, bytes: number): void;
  /** A parent gave something that is not what authority says. */
  wrongBlocks(parent: string, run: BlockRun): void;
  /** Blocks of this parent wait, and its list of their piece's digests would tell what they are. */
  listWanted(parent: string, run: BlockRun): void;
  /** Bytes that nothing could be checked against were accepted. */
  unverified(bytes: number): void;
  failed(error: PantalaError): void;
}

/** Where blocks from parents come in: checked against what authority says of them, and written. */
export class Intake {
  readonly verification: Verification;
  readonly #task: StoredTask;
  readonly #geometry: Geometry;
  readonly #listener: IntakeListener;
  #waiting: WaitingBlocks[] = [];
  #waitingLength = 0;
  readonly #accepting = new Set<WaitingBlocks>();
  /** Whether a scheduler hands out digests: what has none yet waits for them. */
  digestsExpected = false;

  constructor(task: StoredTask, listener: IntakeListener) {
    this.#task = task;
    this.#geometry = task.geometry;
    this.#listener = listener;
    this.verification = new Verification(task.geometry, task.description.digest !== undefined);
  }

  /**
   * Stores what a parent sent as far as it is right; what has no digest yet waits for it in memory.
   *
   * @param mayWait false for a parent of upstream's, of whose blocks no digest may ever come
   * @throws `data-loss` when a block is wrong; `disk-full`
   */
  async fromParent(parent: string, run: BlockRun, data: Buffer, mayWait: boolean): Promise<void> {
    if (this.#task.blocks.hasAll(run)) return;
    const digests = digestBlocks(this.#geometry, run, data);
    await this.#accept({ parent, run, data, digests }, { owned: false, mayWait });
  }

  /** Takes digests from the scheduler, and whatever was waiting for them. */
  digestNews(news: Received<typeof pantalaV1.DigestNewsSchema>): void {
    const authority: Authority = news.authority === wire.Authority.CONFIRMED ? 'confirmed' : 'unconfirmed';
    if (Number(news.contentLength) !== this.#geometry.contentLength) return;
    if (Number(news.pieceLength) !== this.#geometry.pieceLength) return;
    for (const { number, digest } of news.pieces) this.verification.acceptPiece(number, digest, authority);
    for (const { run, digests } of news.blocks) {
      if (run !== undefined) this.verification.acceptBlocks(run, digests, authority);
    }
    this.#retryWaiting();
    for (const { parent, run } of this.#waiting) {
      if (this.verification.needsList(run)) this.#listener.listWanted(parent, run);
    }
  }

  /**
   * A parent's list of a piece's block digests. True when it counts from now on.
   *
   * @throws `data-loss` when the piece's digest says that it is wrong
   */
  digestList(parent: string, piece: number, digests: Buffer): boolean {
    const verdict = this.verification.acceptList(piece, digests);
    if (verdict === 'checked') this.#retryWaiting();
    if (verdict !== 'wrong') return verdict === 'checked';
    this.#listener.wrongBlocks(parent, this.#geometry.pieceBlocks(piece));
    throw new PantalaError('data-loss', `the digests of piece ${piece} of parent ${parent} are not those of the piece`);
  }

  /** What waits of a parent that is not believed any more waits in vain. */
  forgetParent(parent: string): void {
    this.#waiting = this.#waiting.filter((blocks) => blocks.parent !== parent);
    this.#waitingLength = this.#waiting.reduce((sum, { data }) => sum + data.length, 0);
  }

  /** Runs that wait in memory, or are on their way from there to the disk. */
  *waiting(): Generator<BlockRun> {
    for (const { run } of this.#waiting) yield run;
    for (const { run } of this.#accepting) yield run;
  }

  /** The scheduler's digests are void, and so is what waited for them. */
  forget(): void {
    this.verification.forget();
    this.#waiting = [];
    this.#waitingLength = 0;
  }

  #retryWaiting(): void {
    const waiting = this.#waiting;
    if (waiting.length === 0) return;
    this.#waiting = [];
    this.#waitingLength = 0;
    for (const blocks of waiting) {
      this.#accepting.add(blocks);
      this.#accept(blocks, { owned: true, mayWait: true })
        .catch((error: unknown) => {
          const failure = PantalaError.from(error);
          if (failure.code !== 'data-loss' && failure.code !== 'cancelled') this.#listener.failed(failure);
        })
        .finally(() => this.#accepting.delete(blocks));
    }
  }

  async #accept(
    blocks: WaitingBlocks,
    { owned, mayWait }: { readonly owned: boolean; readonly mayWait: boolean },
  ): Promise<void> {
    const { parent, run, data, digests } = blocks;
    const { verification } = this;
    let at = 0;
    let wrong: BlockRun | undefined;
    while (at < run.count) {
      const rest = { first: run.first + at, count: run.count - at };
      const judged = verification.judge(rest, digests.subarray(at * DIGEST_LENGTH));
      const part = { first: rest.first, count: judged.count };
      const bytes = this.#slice(run, data, part);
      const partDigests = digests.subarray(at * DIGEST_LENGTH, (at + judged.count) * DIGEST_LENGTH);
      at += judged.count;
      if (judged.verdict === 'wrong') wrong = part;
      else if (judged.verdict !== 'unknown') await this.#write(parent, part, bytes, partDigests, judged.verdict);
      else if (this.digestsExpected && mayWait)
        this.#wait({ parent, run: part, data: bytes, digests: partDigests }, owned);
      else await this.#writeUnknown(parent, part, bytes, partDigests);
    }
    if (wrong === undefined) return;
    this.#listener.wrongBlocks(parent, wrong);
    throw new PantalaError('data-loss', `blocks from ${wrong.first} of parent ${parent} do not match their digests`);
  }

  async #write(parent: string, run: BlockRun, data: Buffer, digests: Buffer, trust: Trust): Promise<void> {
    const { blocks, provisional } = this.#task;
    const fresh = !blocks.hasAll(run) && !provisional.hasAll(run);
    await this.#task.write(run, data, digests, trust);
    this.#listener.storedFromParent(parent, run, fresh ? data.length : 0);
  }

  /** No authority can be asked: the whole content's digest decides, or nothing does. */
  async #writeUnknown(parent: string, run: BlockRun, data: Buffer, digests: Buffer): Promise<void> {
    const provable = this.#task.description.digest !== undefined;
    if (!provable) this.#listener.unverified(data.length);
    await this.#write(parent, run, data, digests, provable ? 'provisional' : 'checked');
  }

  #wait(blocks: WaitingBlocks, owned: boolean): void {
    if (this.#waitingLength + blocks.data.length > MAX_WAITING_LENGTH) return;
    this.#waitingLength += blocks.data.length;
    this.#waiting.push(owned ? blocks : { ...blocks, data: Buffer.from(blocks.data) });
    if (this.verification.needsList(blocks.run)) this.#listener.listWanted(blocks.parent, blocks.run);
  }

  #slice(run: BlockRun, data: Buffer, part: BlockRun): Buffer {
    if (part.count === run.count) return data;
    const start = (part.first - run.first) * BLOCK_LENGTH;
    return data.subarray(start, start + lengthOf(this.#geometry.runRange(part)));
  }
}
