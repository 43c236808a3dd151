import {
  type BlockRun,
  type ByteRange,
  crc32,
  DIGEST_LENGTH,
  lengthOf,
  PantalaError,
  parseContentDigest,
  pieceDigest,
} from '@pantala/base';
import type { DataLease, StoredTask, Trust } from './contract.ts';
import { factsOf, readRange, sameContent, writeAt } from './file-io.ts';
import { JournaledTask } from './journaled-task.ts';
import { copyOut, linkOut } from './outputs.ts';
import type { OpenFiles } from './task-files.ts';
import { damagedBlocks } from './verification.ts';
import { WholeProof } from './whole-proof.ts';

/** Blocks that are checked in one go: 1 MiB. */
const VERIFIED_AT_ONCE = 64;

/** A task whose content is one sparse file. */
export class FileTask extends JournaledTask implements StoredTask {
  #crcs: Map<number, number> | undefined;
  #proof: WholeProof | undefined;

  async write(run: BlockRun, data: Buffer, digests: Buffer, trust: Trust): Promise<void> {
    this.#assertRun(run, data, digests);
    const epoch = this.epoch;
    // A file with another name is somebody else's too: it is never written to, only found right or dropped.
    if (this.linked !== undefined && !this.complete) await this.part().verified.promise;
    using flight = await this.takeOff(run);
    if (flight === undefined) return;
    const { partial } = flight;
    try {
      this.assertEpoch(epoch);
      const missing = partial.missing(run, trust);
      if (missing.length === 0) return;
      const start = this.geometry.blockRange(run.first).start;
      using files = this.pin();
      for (const part of missing) {
        const range = this.geometry.runRange(part);
        const bytes = data.subarray(range.start - start, range.end - start);
        await writeAt(files.data, bytes, range.start, (length) => this.host.makeRoom(length));
      }
      this.assertEpoch(epoch);
      for (const part of missing) {
        const from = (part.first - run.first) * DIGEST_LENGTH;
        const bytes = digests.subarray(from, from + part.count * DIGEST_LENGTH);
        files.writeDigests(bytes, part.first * DIGEST_LENGTH);
      }
      if (trust === 'checked') await this.reveal(missing, epoch);
      else this.hide(missing);
    } catch (error) {
      throw PantalaError.from(error);
    }
  }

  async promote(): Promise<void> {
    const epoch = this.epoch;
    const runs = [...this.provisional.runs(true)];
    if (runs.length > 0) await this.reveal(runs, epoch);
    if (epoch === this.epoch && this.complete && !this.proven) this.prove();
  }

  discardProvisional(): void {
    this.dropProvisional();
  }

  blockDigests(run: BlockRun): Buffer | undefined {
    if (run.count <= 0 || !this.blocks.hasAll(run)) return undefined;
    using files = this.pin();
    const digests = Buffer.allocUnsafe(run.count * DIGEST_LENGTH);
    files.readDigests(digests, run.first * DIGEST_LENGTH);
    return digests;
  }

  pieceDigest(piece: number): Buffer | undefined {
    const digests = this.blockDigests(this.geometry.pieceBlocks(piece));
    return digests === undefined ? undefined : pieceDigest(digests);
  }

  async pieceCrc32(piece: number): Promise<number> {
    const known = this.#crcs?.get(piece);
    if (known !== undefined) return known;
    const epoch = this.epoch;
    const range = this.geometry.pieceRange(piece);
    const step = VERIFIED_AT_ONCE * 16 * 1024;
    let crc = 0;
    for (let start = range.start; start < range.end; start += step) {
      crc = crc32(await this.read({ start, end: Math.min(start + step, range.end) }), crc);
    }
    this.assertEpoch(epoch);
    this.#crcs ??= new Map();
    this.#crcs.set(piece, crc);
    return crc;
  }

  async read(range: ByteRange): Promise<Buffer> {
    if (!this.has(range)) {
      throw new PantalaError('failed-precondition', `bytes ${range.start}-${range.end} of ${this.id} are not held`);
    }
    const epoch = this.epoch;
    using files = this.pin();
    this.host.used(this);
    const data = files.readNow(range) ?? (await readRange(files.data, range));
    this.assertEpoch(epoch);
    return data;
  }

  lease(): DataLease {
    const files = this.pin();
    this.host.used(this);
    let held = true;
    return {
      fd: files.data,
      [Symbol.dispose]() {
        if (held) files[Symbol.dispose]();
        held = false;
      },
    };
  }

  async copyTo(path: string, options: { readonly overwrite: boolean; readonly signal?: AbortSignal }): Promise<void> {
    this.#assertComplete();
    const epoch = this.epoch;
    using files = this.pin();
    this.host.used(this);
    await copyOut(files.data, this.contentLength, path, { ...options, check: () => this.assertEpoch(epoch) });
  }

  async linkTo(path: string): Promise<void> {
    this.#assertComplete();
    using files = this.pin();
    this.host.used(this);
    // Known as linked before it is, with a time that never fits: after a crash in between it is verified.
    const before = factsOf(files.data);
    this.setLinked({ ...before, changedNs: 0n });
    await this.host.journal.flushed();
    try {
      await linkOut(this.host.files.dataPath(this.id), files.data, path);
    } finally {
      const after = factsOf(files.data);
      if (sameContent(before, after)) this.setLinked(after);
    }
    await this.host.journal.flushed();
  }

  override recoverVoid(): void {
    super.recoverVoid();
    this.#crcs = undefined;
    this.#proof = undefined;
  }

  async verifySome(): Promise<boolean> {
    const epoch = this.epoch;
    const first = this.suspect.next(true, 0);
    if (first === this.geometry.blockCount) return false;
    const [suspects] = this.suspect.runs(true, { first, count: VERIFIED_AT_ONCE });
    using flight = await this.takeOff(suspects as BlockRun);
    if (flight === undefined) return false;
    try {
      using files = this.open();
      if (this.linked !== undefined) flight.partial.linkFacts ??= factsOf(files.data);
      // Blocks that were written anew meanwhile are suspect no longer.
      const runs = [...this.suspect.runs(true, suspects)];
      for (const run of runs) await this.#verifyRun(files, run, epoch);
      return true;
    } catch (error) {
      const reason = PantalaError.from(error);
      // Anything but wrong bytes passes (no descriptors, no room in the journal): the next who asks tries again. But
      // what waits to write to a linked file needs an outcome.
      const wrong = reason.code === 'data-loss' || this.linked !== undefined;
      if (wrong && epoch === this.epoch) await this.void(reason);
      return false;
    }
  }

  async #verifyRun(files: OpenFiles, run: BlockRun, epoch: number): Promise<void> {
    const data = await readRange(files.data, this.geometry.runRange(run));
    const digests = Buffer.alloc(run.count * DIGEST_LENGTH);
    files.readDigests(digests, run.first * DIGEST_LENGTH);
    this.assertEpoch(epoch);
    const damaged = damagedBlocks(this.geometry, run, data, digests);
    this.host.damaged(damaged.length);
    if (damaged.length > 0 && this.linked !== undefined) {
      throw new PantalaError('data-loss', `the file of ${this.id} was changed through its hard link`);
    }
    this.dropSuspect(damaged);
    const good = [...this.suspect.runs(true, run)];
    if (good.length > 0 && (await this.#mayReveal(good, files, epoch))) await this.reveal(good, epoch);
  }

  /** Whether blocks may be shown that are right each: not when they are the last ones and the whole is not proven. */
  async #mayReveal(runs: readonly BlockRun[], files: OpenFiles, epoch: number): Promise<boolean> {
    const { digest } = this.description;
    const last = runs.reduce((sum, { count }) => sum + count, this.blocks.count) === this.geometry.blockCount;
    if (!last || this.proven || digest === undefined) return true;
    this.#proof ??= new WholeProof(parseContentDigest(digest), this.contentLength);
    const right = await this.#proof.step(files.data);
    this.assertEpoch(epoch);
    if (right === undefined) return false;
    this.#proof = undefined;
    if (!right) throw new PantalaError('data-loss', `the content of ${this.id} does not have the digest ${digest}`);
    this.proven = true;
    return true;
  }

  #assertRun(run: BlockRun, data: Buffer, digests: Buffer): void {
    const { geometry } = this;
    const valid =
      run.first >= 0 &&
      run.count > 0 &&
      run.first + run.count <= geometry.blockCount &&
      geometry.pieceOfBlock(run.first) === geometry.pieceOfBlock(run.first + run.count - 1);
    if (!valid) {
      throw new PantalaError('invalid-argument', `blocks ${run.first}+${run.count} are not of one piece of ${this.id}`);
    }
    const length = lengthOf(geometry.runRange(run));
    if (data.length !== length || digests.length !== run.count * DIGEST_LENGTH) {
      throw new PantalaError(
        'invalid-argument',
        `${run.count} blocks of ${length} bytes came with ${data.length} bytes and ${digests.length} bytes of digests`,
      );
    }
  }

  #assertComplete(): void {
    if (!this.complete) throw new PantalaError('failed-precondition', `task ${this.id} is not complete`);
  }
}
