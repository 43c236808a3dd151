/**
 * The kernel's FUSE protocol (linux/fuse.h, version 7), as far as a folder of flat files needs it: numbers are those of
 * the machine, which is little-endian on x86-64 and arm64.
 */

export const OPCODES = {
  lookup: 1,
  forget: 2,
  getattr: 3,
  open: 14,
  read: 15,
  statfs: 17,
  release: 18,
  flush: 25,
  init: 26,
  opendir: 27,
  readdir: 28,
  releasedir: 29,
  access: 34,
  interrupt: 36,
  destroy: 38,
  batchForget: 42,
} as const;

/** Requests that get no answer. */
export const UNANSWERED: ReadonlySet<number> = new Set([
  OPCODES.forget,
  OPCODES.batchForget,
  OPCODES.interrupt,
  OPCODES.destroy,
]);

/** Bytes of struct fuse_in_header and fuse_out_header. */
export const IN_HEADER = 40;
export const OUT_HEADER = 16;
/** Bytes of one READ. */
export const MAX_READ = 1024 * 1024;
const ATTRIBUTES = 88;
export const ROOT_NODE = 1;

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;

/** The oldest minor version whose structures are those below; and the one that is spoken. */
const MINOR = 31;
const FLAGS = { asyncRead: 1 << 0, parallelDirops: 1 << 18, maxPages: 1 << 22 };
/** Pages of one READ. */
const MAX_PAGES = MAX_READ / 4096;
/** Bytes of a WRITE, of which there are none; it decides how long a read from the device must be. */
const MAX_WRITE = 4096;
/** Bytes that the kernel may read ahead. */
const MAX_READAHEAD = 1024 * 1024;
/** Requests that the kernel makes ahead at once. */
const MAX_BACKGROUND = 64;
/** Seconds for which names and attributes hold: blobs never change. */
const VALID = 86_400n;
/** FOPEN_KEEP_CACHE: what the kernel has in memory of a file stays right. */
const KEEP_CACHE = 2;

export interface FuseRequest {
  readonly opcode: number;
  readonly unique: bigint;
  readonly node: number;
  /** Process that asks; 0 for the kernel itself, which reads ahead. */
  readonly pid: number;
  readonly body: Uint8Array;
}

/** Undefined when it is none. */
export function parseRequest(bytes: Uint8Array): FuseRequest | undefined {
  if (bytes.length < IN_HEADER) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(0, true);
  if (length < IN_HEADER || length > bytes.length) return undefined;
  return {
    opcode: view.getUint32(4, true),
    unique: view.getBigUint64(8, true),
    node: Number(view.getBigUint64(16, true)),
    pid: view.getUint32(32, true),
    body: bytes.subarray(IN_HEADER, length),
  };
}

/** A node as a key. */
export function keyOf(node: number): string {
  return node.toString(16);
}

/** Name of a LOOKUP. */
export function lookupName({ body }: FuseRequest): string {
  const end = body.indexOf(0);
  return Buffer.from(body.subarray(0, end === -1 ? body.length : end)).toString('latin1');
}

export interface ReadRange {
  readonly offset: number;
  readonly count: number;
}

/** Range of a READ; undefined when the request is too short. */
export function readRange({ body }: FuseRequest): ReadRange | undefined {
  if (body.length < 20) return undefined;
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  return { offset: Number(view.getBigUint64(8, true)), count: view.getUint32(16, true) };
}

/** Header of an answer. @param errno 0, or why it failed @param length bytes that follow */
export function answerHeader(unique: bigint, errno: number, length: number): Uint8Array {
  const header = new DataView(new ArrayBuffer(OUT_HEADER));
  writeHeader(header, unique, errno, length);
  return new Uint8Array(header.buffer);
}

/** The same into the first bytes of a buffer. */
export function writeHeader(header: DataView, unique: bigint, errno: number, length: number): void {
  header.setUint32(0, OUT_HEADER + length, true);
  header.setInt32(4, -errno, true);
  header.setBigUint64(8, unique, true);
}

/** struct fuse_init_out. @param request of INIT; undefined answer when the kernel is too old */
export function initAnswer({ body }: FuseRequest): Uint8Array | undefined {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  if (body.length < 16 || view.getUint32(0, true) !== 7 || view.getUint32(4, true) < MINOR) return undefined;
  const offered = view.getUint32(12, true);
  const wanted = FLAGS.asyncRead | FLAGS.parallelDirops | FLAGS.maxPages;
  const answer = new DataView(new ArrayBuffer(64));
  answer.setUint32(0, 7, true);
  answer.setUint32(4, MINOR, true);
  answer.setUint32(8, Math.min(MAX_READAHEAD, view.getUint32(8, true)), true);
  answer.setUint32(12, (offered & wanted) >>> 0, true);
  answer.setUint16(16, MAX_BACKGROUND, true);
  answer.setUint16(18, (MAX_BACKGROUND * 3) / 4, true);
  answer.setUint32(20, MAX_WRITE, true);
  answer.setUint32(24, 1, true);
  answer.setUint16(28, MAX_PAGES, true);
  return new Uint8Array(answer.buffer);
}

/** struct fuse_attr. @param size bytes; undefined for the folder */
function attributes(node: number, size: number | undefined): Uint8Array {
  const view = new DataView(new ArrayBuffer(ATTRIBUTES));
  view.setBigUint64(0, BigInt(node), true);
  view.setBigUint64(8, BigInt(size ?? 0), true);
  view.setBigUint64(16, BigInt(Math.ceil((size ?? 0) / 512)), true);
  view.setUint32(60, size === undefined ? S_IFDIR | 0o500 : S_IFREG | 0o400, true);
  view.setUint32(64, 1, true);
  view.setUint32(80, 4096, true);
  return new Uint8Array(view.buffer);
}

/** struct fuse_entry_out. */
export function entryAnswer(node: number, size: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(40));
  view.setBigUint64(0, BigInt(node), true);
  view.setBigUint64(16, VALID, true);
  view.setBigUint64(24, VALID, true);
  return Buffer.concat([new Uint8Array(view.buffer), attributes(node, size)]);
}

/** struct fuse_attr_out. */
export function attributesAnswer(node: number, size: number | undefined): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  view.setBigUint64(0, VALID, true);
  return Buffer.concat([new Uint8Array(view.buffer), attributes(node, size)]);
}

/** struct fuse_open_out. */
export function openAnswer(): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  view.setUint32(8, KEEP_CACHE, true);
  return new Uint8Array(view.buffer);
}

/** struct fuse_statfs_out of a file system of which nobody asks anything. */
export function statfsAnswer(): Uint8Array {
  const view = new DataView(new ArrayBuffer(80));
  view.setUint32(40, 4096, true);
  view.setUint32(44, 255, true);
  view.setUint32(48, 4096, true);
  return new Uint8Array(view.buffer);
}
