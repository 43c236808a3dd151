import { PantalaError } from '@pantala/base';
import type { Framing } from './response-head.ts';
import type { ProgressWatch, SocketReader } from './socket-reader.ts';

/** A chunk's size line with extensions; real ones have under 20 bytes. */
const MAX_CHUNK_LINE = 4096;
/** Trailer lines after a chunked body, together. */
const MAX_TRAILER_LENGTH = 16 * 1024;

/** Takes a body out of the bytes of a connection (RFC 9112 §6, §7). */
export class BodyReader {
  readonly #reader: SocketReader;
  readonly #watch: ProgressWatch;
  readonly #framing: Framing;
  /** Bytes until the end of the body or of the chunk. */
  #left: number;
  #firstChunk = true;
  #done: boolean;

  constructor(reader: SocketReader, watch: ProgressWatch, framing: Framing) {
    this.#reader = reader;
    this.#watch = watch;
    this.#framing = framing;
    this.#left = framing.kind === 'length' ? framing.length : 0;
    if (framing.kind === 'length') reader.expect(framing.length);
    this.#done = framing.kind === 'none' || (framing.kind === 'length' && framing.length === 0);
  }

  /** Whether everything was read. */
  get done(): boolean {
    return this.#done;
  }

  /** Bytes of the body that are known to come still; undefined when their number is not known. */
  get left(): number | undefined {
    if (this.#done) return 0;
    return this.#framing.kind === 'length' ? this.#left : undefined;
  }

  /**
   * The next bytes of the body, valid until the next call; undefined at its end.
   *
   * @throws `unavailable` when the connection ends before the body, `origin` for a broken framing,
   *   `deadline-exceeded`
   */
  async read(): Promise<Buffer | undefined> {
    if (this.#done) return undefined;
    if (this.#framing.kind === 'chunked' && this.#left === 0 && !(await this.#nextChunk())) return undefined;
    const bytes = await this.#watch.read();
    if (bytes === undefined) return this.#atEnd();
    if (this.#framing.kind === 'close') return bytes;
    const body = bytes.length <= this.#left ? bytes : bytes.subarray(0, this.#left);
    this.#left -= body.length;
    this.#reader.unread(bytes.subarray(body.length));
    if (this.#left === 0 && this.#framing.kind === 'length') this.#done = true;
    return body;
  }

  #atEnd(): undefined {
    if (this.#framing.kind === 'close') {
      this.#done = true;
      return undefined;
    }
    const missing = this.#framing.kind === 'length' ? `${this.#left} bytes` : 'the last chunk';
    throw new PantalaError('unavailable', `the origin closed the connection before ${missing} of the body`);
  }

  /** Reads the line before a chunk; false when it was the last one. */
  async #nextChunk(): Promise<boolean> {
    if (!this.#firstChunk && (await this.#line(2)) !== '') throw broken('a chunk does not end where its length says');
    this.#firstChunk = false;
    const line = await this.#line(MAX_CHUNK_LINE);
    const match = /^([0-9a-fA-F]{1,12})[ \t]*(?:;.*)?$/.exec(line);
    if (match === null) throw broken(`a chunk begins with ${JSON.stringify(line.slice(0, 40))}`);
    this.#left = Number.parseInt(match[1] as string, 16);
    if (this.#left > 0) return true;
    let length = 0;
    for (
      let trailer = await this.#line(MAX_TRAILER_LENGTH);
      trailer !== '';
      trailer = await this.#line(MAX_TRAILER_LENGTH)
    ) {
      length += trailer.length;
      if (length > MAX_TRAILER_LENGTH) throw broken('its trailers are too long');
    }
    this.#done = true;
    return false;
  }

  async #line(limit: number): Promise<string> {
    let text = '';
    for (;;) {
      const bytes = await this.#watch.read();
      if (bytes === undefined) return this.#atEnd() ?? '';
      const end = bytes.indexOf(10);
      text += bytes.toString('latin1', 0, end < 0 ? bytes.length : end);
      if (text.length > limit) throw broken('a line between chunks is too long');
      if (end < 0) continue;
      this.#reader.unread(bytes.subarray(end + 1));
      return text.endsWith('\r') ? text.slice(0, -1) : text;
    }
  }
}

function broken(what: string): PantalaError {
  return new PantalaError('origin', `the body of the answer is broken: ${what}`);
}
