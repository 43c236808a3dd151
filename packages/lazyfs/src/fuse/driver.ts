import { constants as fsConstants, openSync, read, writevSync } from 'node:fs';
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Logger, PantalaError } from '@pantala/base';
import { MOUNT_FLAGS, mountTable, mountWithData, unmount } from '@pantala/linux';
import type { LazyBlob } from '../contract.ts';
import type { Demand } from '../demand.ts';
import type { AttachedBlob, LazyDriver, ServedBlob } from '../driver.ts';
import { Answering } from '../pending/answering.ts';
import type { PendingTable } from '../pending/pending-table.ts';
import {
  answerHeader,
  attributesAnswer,
  entryAnswer,
  type FuseRequest,
  IN_HEADER,
  initAnswer,
  keyOf,
  lookupName,
  MAX_READ,
  OPCODES,
  openAnswer,
  parseRequest,
  ROOT_NODE,
  readRange,
  statfsAnswer,
  UNANSWERED,
} from './protocol.ts';

/** A request that was taken from the kernel and is noted in the table. */
export interface TakenRequest {
  readonly slot: number;
  readonly bytes: Uint8Array;
}

export interface FuseOptions {
  /** /dev/fuse, open and mounted: from `connectFuse`, or taken over. */
  readonly device: number;
  /** Where it is mounted. */
  readonly directory: string;
  readonly table: PendingTable;
  readonly demand: Demand;
  readonly logger: Logger;
  /** Called when requests can no longer be taken: this worker must give way to another. */
  readonly onFailure: (error: PantalaError) => void;
}

/** Threads that take requests: each answers one at a time, for which it may have to read from the disk. */
const THREADS = 4;

interface Attachment {
  readonly path: string;
  readonly size: number;
  readonly file: FileHandle;
  readonly users: Set<ServedBlob>;
}

const readFile = promisify(read);

/**
 * Opens a connection and mounts it.
 *
 * @param directory is made; what an earlier connection has left there is taken away
 * @returns the descriptor; the connection, and every read that waits in it, ends with the last copy of it
 * @throws LinuxError; `not-found` without /dev/fuse
 */
export async function connectFuse(directory: string): Promise<number> {
  await disconnectFuse(directory);
  await mkdir(directory, { recursive: true });
  let device: number;
  try {
    device = openSync('/dev/fuse', fsConstants.O_RDWR | fsConstants.O_NONBLOCK);
  } catch (error) {
    throw PantalaError.from(error);
  }
  const flags = MOUNT_FLAGS.readOnly | MOUNT_FLAGS.noSuid | MOUNT_FLAGS.noDevices | MOUNT_FLAGS.noExecution;
  const data = `fd=${device},rootmode=40000,user_id=0,group_id=0,max_read=${MAX_READ}`;
  await mountWithData('pantala', directory, 'fuse', flags, data);
  return device;
}

/** Takes away whatever is mounted there. @throws LinuxError */
export async function disconnectFuse(directory: string): Promise<void> {
  while (mountTable().some((entry) => entry.target === directory)) await unmount(directory, { detach: true });
}

/**
 * Shows each blob as a flat file, which the kernel gets as `device=`: for kernels without events before reads, and
 * caches on file systems that do not take them. Only blobs' bytes come through it; metadata stays in the kernel.
 */
export class FuseDriver implements LazyDriver {
  readonly name = 'fuse';
  readonly #options: FuseOptions;
  readonly #attached = new Map<number, Attachment>();
  readonly #answering: Answering<TakenRequest>;

  constructor(options: FuseOptions) {
    this.#options = options;
    this.#answering = new Answering({
      script: new URL('./fuse-thread.ts', import.meta.url),
      threads: THREADS,
      source: options.device,
      table: options.table,
      serve: (request) => this.#serve(request),
      onFailure: options.onFailure,
    });
  }

  /** @throws `not-found` without the cache file */
  async attach(served: ServedBlob): Promise<AttachedBlob> {
    const node = nodeOf(served.id);
    let attachment = this.#attached.get(node);
    if (attachment === undefined) {
      const file = await open(served.path, 'r');
      attachment = { path: served.path, size: served.size, file, users: new Set() };
      this.#attached.set(node, attachment);
    }
    if (attachment.path !== served.path) {
      throw new PantalaError('internal', `blobs ${served.path} and ${attachment.path} have the same node`);
    }
    const { users, file } = attachment;
    users.add(served);
    return {
      device: join(this.#options.directory, served.id),
      [Symbol.asyncDispose]: async () => {
        users.delete(served);
        if (users.size > 0 || this.#attached.get(node)?.users !== users) return;
        this.#attached.delete(node);
        this.#answering.forget(keyOf(node));
        await file.close();
      },
    };
  }

  opened(blob: LazyBlob): void {
    const node = nodeOf(blob.id);
    if (this.#attached.get(node)?.path === blob.path) this.#answering.share(keyOf(node), blob);
  }

  /** Its reads go on coming through here: a file that is open cannot be exchanged under the kernel. */
  complete(): void {}

  start(): void {
    if (this.#answering.begun) return;
    const left = this.#leftOver();
    if (left.length > 0)
      this.#options.logger.info('reads that the last worker left unanswered', { count: left.length });
    for (const request of left) void this.#answering.track(this.#serve(request));
    this.#answering.begin();
  }

  /** What is in the table and what the worker before had not come to note there. */
  #leftOver(): TakenRequest[] {
    const { table } = this.#options;
    const taken = table.leftOver().map(({ slot, record }) => ({ slot, bytes: record }));
    const noted = new Set(taken.map(({ bytes }) => parseRequest(bytes)?.unique));
    for (const intake of table.intakes) {
      const request = parseRequest(intake);
      if (request !== undefined && !UNANSWERED.has(request.opcode) && !noted.has(request.unique)) {
        const bytes = intake.slice(0, IN_HEADER + request.body.length);
        taken.push({ slot: table.add(bytes), bytes });
      }
      intake.fill(0);
    }
    return taken;
  }

  async #serve({ slot, bytes }: TakenRequest): Promise<void> {
    const { table, logger } = this.#options;
    const request = parseRequest(bytes);
    if (request !== undefined) {
      try {
        const answer = await this.#answer(request);
        if (this.#answering.isOver) return;
        if (typeof answer === 'number') this.#send(request, answer, undefined);
        else this.#send(request, 0, answer);
      } catch (error) {
        if (this.#answering.isOver) return;
        logger.error('a request could not be answered', { opcode: request.opcode, error });
        this.#send(request, constants.errno.EIO, undefined);
      }
    }
    table.free(slot);
  }

  #send({ unique }: FuseRequest, errno: number, data: Uint8Array | undefined): void {
    const { device, logger } = this.#options;
    const header = answerHeader(unique, errno, data?.length ?? 0);
    try {
      writevSync(device, data === undefined || data.length === 0 ? [header] : [header, data]);
    } catch (error) {
      // ENOENT: nobody waits for it any more.
      if (PantalaError.from(error).code !== 'not-found') logger.error('an answer could not be given', { error });
    }
  }

  /** What a request gets: bytes, or an errno. */
  async #answer(request: FuseRequest): Promise<Uint8Array | number> {
    const { node } = request;
    switch (request.opcode) {
      case OPCODES.init:
        return initAnswer(request) ?? constants.errno.EPROTO;
      case OPCODES.lookup: {
        const id = lookupName(request);
        const found = /^[0-9a-f]{64}$/.test(id) ? this.#attached.get(nodeOf(id)) : undefined;
        return found === undefined ? constants.errno.ENOENT : entryAnswer(nodeOf(id), found.size);
      }
      case OPCODES.getattr: {
        const found = this.#attached.get(node);
        if (found === undefined && node !== ROOT_NODE) return constants.errno.ESTALE;
        return attributesAnswer(node, found?.size);
      }
      case OPCODES.open:
      case OPCODES.opendir:
        return openAnswer();
      case OPCODES.read:
        return this.#read(request);
      case OPCODES.statfs:
        return statfsAnswer();
      case OPCODES.readdir:
      case OPCODES.release:
      case OPCODES.releasedir:
      case OPCODES.flush:
      case OPCODES.access:
        return new Uint8Array(0);
      default:
        return constants.errno.ENOSYS;
    }
  }

  async #read(request: FuseRequest): Promise<Uint8Array | number> {
    const range = readRange(request);
    const attachment = this.#attached.get(request.node);
    if (range === undefined || attachment === undefined) return constants.errno.EIO;
    const { offset } = range;
    const count = Math.max(0, Math.min(range.count, MAX_READ, attachment.size - offset));
    const errno = await this.#options.demand.satisfy(attachment.users, offset, count);
    if (errno !== 0) return errno;
    const bytes = Buffer.allocUnsafe(count);
    const { bytesRead } = await readFile(attachment.file.fd, bytes, 0, count, offset);
    return bytesRead === count ? bytes : constants.errno.EIO;
  }

  pause(): Promise<void> {
    return this.#answering.pause();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pause();
    for (const { file } of this.#attached.values()) await file.close();
  }
}

/**
 * The number by which the kernel knows a blob's file: from its id, so that the next worker knows it too. 48 of its bits
 * with one more above them, for the lowest numbers have a meaning.
 */
function nodeOf(id: string): number {
  return Number.parseInt(id.slice(0, 12), 16) + 2 ** 48;
}
