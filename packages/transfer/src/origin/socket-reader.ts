import type { Socket } from 'node:net';
import { monotonicNow, PantalaError } from '@pantala/base';
import { ReadPacing } from '../read-pacing.ts';

/** Bytes of one receive buffer. Two of them are in use while a body is read. */
const SLAB_LENGTH = 256 * 1024;
/** A buffer with less room than this is left for a fresh one, so that reads stay large. */
const MIN_ROOM = 64 * 1024;
/** Bytes that wait for the reader; beyond it the socket is not read. */
const MAX_PENDING = 256 * 1024;
/** Of one body: what has brought this much is a bulk, of which each single byte may be a little later. */
const BULK_LENGTH = 1024 * 1024;
/** Free buffers kept for the next connection. */
const MAX_FREE_SLABS = 16;

/** What a socket option `onread` needs. */
export interface OnRead {
  readonly buffer: () => Uint8Array;
  readonly callback: (length: number, bytes: Uint8Array) => boolean;
}

interface Slab {
  readonly bytes: Buffer;
  /** Parts that wait or are being read, and one while it is received into. */
  uses: number;
}

interface Part {
  bytes: Buffer;
  readonly slab: Slab | undefined;
}

const freeSlabs: Slab[] = [];

function takeSlab(): Slab {
  const slab = freeSlabs.pop() ?? { bytes: Buffer.allocUnsafeSlow(SLAB_LENGTH), uses: 0 };
  slab.uses = 1;
  return slab;
}

function releaseSlab(slab: Slab | undefined): void {
  if (slab === undefined) return;
  slab.uses--;
  if (slab.uses === 0 && freeSlabs.length < MAX_FREE_SLABS) freeSlabs.push(slab);
}

/** Pulls bytes from a socket without copying them; reading pauses while nobody asks. */
export class SocketReader {
  readonly #pending: Part[] = [];
  #pendingLength = 0;
  #socket: Socket | undefined;
  #slab: Slab | undefined;
  #filled = 0;
  #held: Part | undefined;
  #rest: Buffer | undefined;
  #paused = false;
  /** Bytes of the body that are known to come, and those that came of it. */
  #expected = 0;
  #arrived = 0;
  readonly #pacing = new ReadPacing(() => this.#goOn());
  #ended = false;
  #failure: PantalaError | undefined;
  #wake: (() => void) | undefined;

  /** For net.connect; TLS sockets are read by their events instead. */
  readonly onRead: OnRead = {
    buffer: () => this.#target(),
    callback: (length, bytes) => this.#received(length, bytes),
  };

  /** @param plain whether the socket was made with `onRead` */
  attach(socket: Socket, plain: boolean): void {
    this.#socket = socket;
    if (!plain) socket.on('data', (bytes: Buffer) => this.#add({ bytes, slab: undefined }));
    socket.on('end', () => this.#end());
    socket.on('error', (error) => this.#end(PantalaError.from(error)));
    socket.on('close', () => this.#end());
  }

  /** Whether bytes or the end of the connection arrived that nobody asked for. */
  get disturbed(): boolean {
    return this.#ended || this.#pendingLength > 0 || this.#rest !== undefined;
  }

  /**
   * The next bytes, valid until the next call; undefined at the end of the connection.
   *
   * @param deadline milliseconds to wait at most
   * @throws `deadline-exceeded`; `unavailable` for a broken connection
   */
  async read(deadline: number): Promise<Buffer | undefined> {
    const rest = this.#rest;
    if (rest !== undefined) {
      this.#rest = undefined;
      return rest;
    }
    releaseSlab(this.#held?.slab);
    this.#held = undefined;
    if (this.#pending.length === 0 && !this.#ended) await this.#wait(deadline);
    const part = this.#pending.shift();
    if (part === undefined) {
      if (this.#failure !== undefined) throw this.#failure;
      return undefined;
    }
    this.#held = part;
    this.#pendingLength -= part.bytes.length;
    if (this.#paused && this.#pendingLength < MAX_PENDING) {
      this.#paused = false;
      this.#goOn();
    }
    return part.bytes;
  }

  /** A body of so many bytes begins. */
  expect(length: number): void {
    this.#expected = length - this.#pendingLength - (this.#rest?.length ?? 0);
    this.#arrived = 0;
  }

  /** Gives back the end of what `read` brought. */
  unread(rest: Buffer): void {
    if (rest.length > 0) this.#rest = rest;
  }

  /** Lets go of what nobody needs between two answers. */
  release(): void {
    releaseSlab(this.#held?.slab);
    this.#held = undefined;
  }

  #wait(deadline: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#wake = undefined;
        reject(new PantalaError('deadline-exceeded', `the origin was silent for ${Math.round(deadline)} ms`));
      }, deadline);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
    });
  }

  #target(): Uint8Array {
    this.#slab ??= takeSlab();
    if (this.#slab.bytes.length - this.#filled < MIN_ROOM) {
      releaseSlab(this.#slab);
      this.#slab = takeSlab();
      this.#filled = 0;
    }
    return this.#slab.bytes.subarray(this.#filled);
  }

  #received(length: number, bytes: Uint8Array): boolean {
    const slab = this.#slab;
    this.#filled += length;
    if (slab !== undefined) slab.uses++;
    this.#add({ bytes: Buffer.from(bytes.buffer, bytes.byteOffset, length), slab });
    this.#expected -= length;
    this.#arrived += length;
    const rests = this.#arrived > BULK_LENGTH && this.#pacing.rests(length, this.#expected);
    return !this.#paused && !rests;
  }

  #goOn(): void {
    if (!this.#paused && !this.#pacing.resting) this.#socket?.resume();
  }

  #add(part: Part): void {
    this.#pendingLength += part.bytes.length;
    const last = this.#pending.at(-1);
    const follows =
      last?.slab !== undefined &&
      last.slab === part.slab &&
      last.bytes.byteOffset + last.bytes.length === part.bytes.byteOffset;
    if (follows) {
      last.bytes = Buffer.from(last.bytes.buffer, last.bytes.byteOffset, last.bytes.length + part.bytes.length);
      releaseSlab(part.slab);
    } else {
      this.#pending.push(part);
    }
    if (this.#pendingLength >= MAX_PENDING && !this.#paused) {
      this.#paused = true;
      this.#socket?.pause();
    }
    this.#wake?.();
  }

  #end(error?: PantalaError): void {
    this.#failure ??= error;
    this.#ended = true;
    this.#pacing[Symbol.dispose]();
    this.#wake?.();
  }
}

/** Cuts an answer that only trickles: a number of bytes must come in each stretch of waiting. */
export class ProgressWatch {
  readonly #reader: SocketReader;
  readonly #timeout: number;
  readonly #minimum: number;
  #waited = 0;
  #bytes = 0;

  constructor(reader: SocketReader, timeout: number, minimum: number) {
    this.#reader = reader;
    this.#timeout = timeout;
    this.#minimum = minimum;
  }

  /** @throws as SocketReader.read, and `deadline-exceeded` for a trickle */
  async read(): Promise<Buffer | undefined> {
    const start = monotonicNow();
    const bytes = await this.#reader.read(this.#timeout - this.#waited);
    this.#waited += monotonicNow() - start;
    this.#bytes += bytes?.length ?? 0;
    if (this.#bytes >= this.#minimum) {
      this.#bytes = 0;
      this.#waited = 0;
    } else if (this.#waited >= this.#timeout && bytes !== undefined) {
      throw new PantalaError('deadline-exceeded', `the origin sent ${this.#bytes} bytes in ${this.#timeout} ms`);
    }
    return bytes;
  }
}
