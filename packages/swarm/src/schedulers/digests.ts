import type { pantalaV1, Sent } from '@pantala/api';
import { type BlockRun, DIGEST_LENGTH, type Geometry } from '@pantala/base';
import type { StoredTask } from '@pantala/store';

/** Blocks whose digests one message carries: 128 KiB of digests, well below the scheduler's bound. */
const MAX_BLOCKS_PER_REPORT = 4096;

/**
 * Gathers the digests of blocks that our own fetch from the origin brought, and makes reports of them: a piece's
 * digest once it is whole, until then those of its new blocks.
 */
export class DigestReport {
  readonly #task: StoredTask;
  readonly #geometry: Geometry;
  /** Blocks of each piece that came from our own fetch. */
  readonly #own = new Map<number, number>();
  /** Pieces that are on disk wholly by our own fetch and are to be reported. */
  readonly #whole = new Set<number>();
  #fresh: { readonly run: BlockRun; readonly digests: Buffer }[] = [];

  constructor(task: StoredTask) {
    this.#task = task;
    this.#geometry = task.geometry;
  }

  get empty(): boolean {
    return this.#fresh.length === 0 && this.#whole.size === 0;
  }

  /** Digests of a run of one piece, which need not be on disk yet. */
  add(run: BlockRun, digests: Buffer): void {
    this.#fresh.push({ run, digests });
  }

  /** The run is on disk. Returns whether its piece is whole now, all by our own fetch. */
  stored(run: BlockRun): boolean {
    const piece = this.#geometry.pieceOfBlock(run.first);
    const own = (this.#own.get(piece) ?? 0) + run.count;
    this.#own.set(piece, own);
    if (own < this.#geometry.pieceBlocks(piece).count) return false;
    this.#own.delete(piece);
    this.#whole.add(piece);
    return true;
  }

  /** The messages for what was gathered since the last call. */
  take(peerId: string): Sent<typeof pantalaV1.ReportDigestsSchema>[] {
    const fresh = this.#fresh;
    this.#fresh = [];
    const pieces: { number: number; digest: Uint8Array }[] = [];
    const whole = new Set(this.#whole);
    this.#whole.clear();
    for (const number of whole) {
      const digest = this.#task.pieceDigest(number);
      if (digest !== undefined) pieces.push({ number, digest });
      else whole.delete(number);
    }
    const reports: Sent<typeof pantalaV1.ReportDigestsSchema>[] = [];
    let blocks: { run: BlockRun; digests: Uint8Array }[] = [];
    let count = 0;
    const { contentLength, pieceLength } = this.#geometry;
    const flush = (): void => {
      reports.push({
        taskId: this.#task.description.id,
        peerId,
        contentLength: BigInt(contentLength),
        pieceLength: BigInt(pieceLength),
        pieces: pieces.splice(0),
        blocks,
      });
      blocks = [];
      count = 0;
    };
    for (const entry of fresh) {
      if (whole.has(this.#geometry.pieceOfBlock(entry.run.first))) continue;
      for (let at = 0; at < entry.run.count; at += MAX_BLOCKS_PER_REPORT) {
        const length = Math.min(MAX_BLOCKS_PER_REPORT, entry.run.count - at);
        if (count + length > MAX_BLOCKS_PER_REPORT) flush();
        blocks.push({
          run: { first: entry.run.first + at, count: length },
          digests: entry.digests.subarray(at * DIGEST_LENGTH, (at + length) * DIGEST_LENGTH),
        });
        count += length;
      }
    }
    if (blocks.length > 0 || pieces.length > 0) flush();
    return reports;
  }
}
