import type { ByteString } from '@pantala/base';
import { malformed } from '../malformed.ts';

/**
 * The bytes of a bootstrap. Callers first claim a range, which checks it against the file's end, then read fields in
 * it. Nothing in a sound bootstrap overlaps, so what is claimed in all may not exceed the file's length: that bounds
 * time and memory of every walk, whatever points where.
 */
export class BootstrapReader {
  readonly bytes: Buffer;
  readonly #view: DataView;
  #unclaimed: number;

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#unclaimed = bytes.byteLength;
  }

  get length(): number {
    return this.bytes.length;
  }

  /** Whether `length` bytes from `offset` lie in the file. */
  has(offset: number, length: number): boolean {
    return offset >= 0 && length >= 0 && offset + length <= this.bytes.length;
  }

  /** Counts bytes as used, false when that is more than the file has. */
  claim(length: number): boolean {
    this.#unclaimed -= length;
    return this.#unclaimed >= 0;
  }

  u8(offset: number): number {
    return this.#view.getUint8(offset);
  }

  u16(offset: number): number {
    return this.#view.getUint16(offset, true);
  }

  u32(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  /** Rounded where it exceeds 2^53, so only fit for comparing with a limit first. */
  u64(offset: number): number {
    return this.#view.getUint32(offset + 4, true) * 2 ** 32 + this.#view.getUint32(offset, true);
  }

  i64(offset: number): number {
    return this.#view.getInt32(offset + 4, true) * 2 ** 32 + this.#view.getUint32(offset, true);
  }

  string(offset: number, end: number): ByteString {
    return this.bytes.toString('latin1', offset, end);
  }

  /** Copies `length` bytes from `offset` to `at` of `target`. */
  copy(target: Uint8Array, at: number, offset: number, length: number): void {
    this.bytes.copy(target, at, offset, offset + length);
  }

  /** Bytes that keep nothing of the bootstrap in memory. */
  copyOf(offset: number, length: number): Uint8Array {
    return new Uint8Array(this.bytes.subarray(offset, offset + length));
  }

  /** Of the bootstrap's own memory, which the caller must not change afterwards. */
  slice(offset: number, length: number): Buffer {
    return this.bytes.subarray(offset, offset + length);
  }
}

/** Refuses a field of a table that belongs to no inode. */
export function refuse(field: string, offset: number, fact: string): never {
  throw malformed('bootstrap', field, offset, fact);
}
