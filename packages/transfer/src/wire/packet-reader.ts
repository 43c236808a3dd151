import { type DecodedPacket, decodePacket } from './packet.ts';

const NOTHING = Buffer.alloc(0);

/** Finds packets, and the content between them, in a stream that arrives in chunks of any size. */
export class PacketReader {
  #rest: Buffer = NOTHING;

  /** Bytes that wait for more. */
  get buffered(): number {
    return this.#rest.length;
  }

  /** The chunk is read until `next` and `takeContent` have used it up, and not copied before. */
  push(chunk: Buffer): void {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
  }

  /**
   * The next packet, or undefined when it is not all there. Where content follows it, take that first.
   *
   * @throws `data-loss`
   */
  next(): DecodedPacket | undefined {
    const packet = decodePacket(this.#rest);
    if (packet !== undefined) this.#rest = this.#rest.subarray(packet.end);
    return packet;
  }

  /** At most `most` bytes of content: as much of it as has arrived. */
  takeContent(most: number): Buffer {
    const content = this.#rest.subarray(0, most);
    this.#rest = this.#rest.subarray(content.length);
    return content;
  }
}
