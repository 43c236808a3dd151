import { closeSync, constants, openSync, readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { type ByteString, bytesOf, PantalaError, shown } from '@pantala/base';
import { chunkDigest, compressInto, DIGEST_LENGTH } from '@pantala/rafs';
import { KnownDigests } from './known-digests.ts';
import {
  type ChunkJob,
  type FileRead,
  type JobEnd,
  type JobRequest,
  NOT_COMPRESSED,
  type Slot,
  slotOf,
  unpackReads,
  type WorkerSetup,
} from './parcel.ts';

const setup = workerData as WorkerSetup;
const slots = setup.memories.map((memory, index) => slotOf(index, memory, setup.layout));
const seats = setup.known.map((memory) => new KnownDigests(memory));
const compression = setup.lz4 === undefined ? {} : { lz4: setup.lz4 };

/**
 * One job in each turn of the event loop: memory of native code (LZ4 of the npm package) is freed between turns, and a
 * port that is never empty hands over its messages in one.
 */
const waiting: JobRequest[] = [];

parentPort?.on('message', (request: JobRequest) => {
  waiting.push(request);
  if (waiting.length === 1) setImmediate(next);
});

function next(): void {
  run(waiting[0] as JobRequest);
  waiting.shift();
  if (waiting.length > 0) setImmediate(next);
}

function run({ id, job }: JobRequest): void {
  const slot = slots[job.slot] as Slot;
  let end: JobEnd = { id };
  try {
    if (job.kind === 'chunks') digestAndCompress(job, slot);
    else slot.stored[0] = compress(slot, 0, job.length, 0);
  } catch (error) {
    const { code, message } = PantalaError.from(error);
    end = { id, error: { code, message } };
  }
  parentPort?.postMessage(end);
}

function digestAndCompress(job: ChunkJob, slot: Slot): void {
  read(unpackReads(job.reads), slot.content);
  const known = seats[job.seat] as KnownDigests;
  let [at, compressedAt] = [0, 0];
  for (const [index, given] of job.lengths.entries()) {
    const length = Math.abs(given);
    const content = slot.content.subarray(at, at + length);
    const digest = chunkDigest(setup.digester, content);
    slot.digests.set(digest, index * DIGEST_LENGTH);
    const skip = given < 0 || known.mayHave(digest);
    const stored = skip ? NOT_COMPRESSED : compress(slot, at, length, compressedAt);
    slot.stored[index] = stored;
    at += length;
    if (stored !== length) compressedAt += stored;
  }
}

/** @returns bytes as which it is stored: its own length when it does not shrink */
function compress(slot: Slot, at: number, length: number, compressedAt: number): number {
  if (!setup.layout.compresses) return length;
  const content = slot.content.subarray(at, at + length);
  const target = slot.compressed.subarray(compressedAt, compressedAt + length);
  const written = compressInto(setup.compressor, content, target, compression);
  return written === 0 ? length : written;
}

interface OpenFile {
  readonly path: ByteString;
  readonly descriptor: number;
}

/** Neighbours are mostly of one file: it stays open between them. */
function read(reads: Iterable<FileRead>, content: Uint8Array): void {
  let open: OpenFile | undefined;
  try {
    for (const { path, offset, length, at } of reads) {
      if (path === '') {
        content.fill(0, at, at + length);
        continue;
      }
      if (open?.path !== path) {
        if (open !== undefined) closeSync(open.descriptor);
        open = undefined;
        open = { path, descriptor: openSync(bytesOf(path), constants.O_RDONLY | constants.O_NOFOLLOW) };
      }
      readWhole(open, offset, content.subarray(at, at + length));
    }
  } finally {
    if (open !== undefined) closeSync(open.descriptor);
  }
}

function readWhole(file: OpenFile, offset: number, target: Uint8Array): void {
  for (let filled = 0; filled < target.length; ) {
    const count = readSync(file.descriptor, target, filled, target.length - filled, offset + filled);
    if (count === 0) {
      throw new PantalaError(
        'failed-precondition',
        `${shown(file.path)} became shorter while it was read: build from a tree that nobody changes`,
      );
    }
    filled += count;
  }
}
