import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  Bitmap,
  type BlockRun,
  blockDigest,
  crc32,
  DIGEST_LENGTH,
  Geometry,
  Listeners,
  pieceDigest,
  sha256Hex,
} from '@pantala/base';
import type { DataLease, StoredTask, StoreEvent, TaskDescription } from '@pantala/store';

/** A task whose content lies in a real file and whose held blocks the test decides on. */
export class FileTask implements StoredTask {
  readonly description: TaskDescription;
  readonly geometry: Geometry;
  readonly blocks: Bitmap;
  readonly provisional: Bitmap;
  readonly createdAt = Date.now();
  readonly completedAt = undefined;
  readonly content: Buffer;
  readonly #fd: number;
  readonly #listeners = new Listeners<StoreEvent>();
  leases = 0;

  constructor(directory: string, contentLength: number, pieceLength: number, held = true) {
    this.content = randomBytes(contentLength);
    const id = sha256Hex(this.content);
    const path = join(directory, id);
    writeFileSync(path, this.content);
    this.#fd = openSync(path, 'r');
    this.description = { id, url: 'http://origin/file', contentLength, pieceLength, responseHeaders: {} };
    this.geometry = new Geometry(contentLength, pieceLength);
    this.blocks = new Bitmap(this.geometry.blockCount);
    this.provisional = new Bitmap(this.geometry.blockCount);
    if (held) this.blocks.setRun({ first: 0, count: this.geometry.blockCount });
  }

  get complete(): boolean {
    return this.blocks.count === this.blocks.length;
  }

  hold(run: BlockRun): void {
    this.blocks.setRun(run);
    this.#listeners.emit({ kind: 'blocks', run });
  }

  has(): boolean {
    return this.complete;
  }

  availableFrom(offset: number): number {
    return offset;
  }

  write(): Promise<void> {
    return Promise.reject(new Error('this task is read-only'));
  }

  promote(): Promise<void> {
    return Promise.resolve();
  }

  recheck(): void {}

  discardProvisional(): void {}

  bytesOf(run: BlockRun): Buffer {
    const range = this.geometry.runRange(run);
    return this.content.subarray(range.start, range.end);
  }

  blockDigests(run: BlockRun): Buffer | undefined {
    if (!this.blocks.hasAll(run)) return undefined;
    const digests = Buffer.alloc(run.count * DIGEST_LENGTH);
    for (let i = 0; i < run.count; i++) {
      blockDigest(this.bytesOf({ first: run.first + i, count: 1 })).copy(digests, i * DIGEST_LENGTH);
    }
    return digests;
  }

  pieceDigest(piece: number): Buffer | undefined {
    const digests = this.blockDigests(this.geometry.pieceBlocks(piece));
    return digests && pieceDigest(digests);
  }

  pieceCrc32(piece: number): Promise<number> {
    const range = this.geometry.pieceRange(piece);
    return Promise.resolve(crc32(this.content.subarray(range.start, range.end)));
  }

  read(range: { start: number; end: number }): Promise<Buffer> {
    const bytes = Buffer.alloc(range.end - range.start);
    readSync(this.#fd, bytes, 0, bytes.length, range.start);
    return Promise.resolve(bytes);
  }

  lease(): DataLease {
    this.leases++;
    let open = true;
    return {
      fd: this.#fd,
      [Symbol.dispose]: () => {
        if (open) this.leases--;
        open = false;
      },
    };
  }

  copyTo(): Promise<void> {
    return Promise.resolve();
  }

  linkTo(): Promise<void> {
    return Promise.resolve();
  }

  subscribe(listener: (event: StoreEvent) => void): Disposable {
    return this.#listeners.subscribe(listener);
  }

  close(): void {
    closeSync(this.#fd);
  }
}
