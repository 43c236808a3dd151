import { decodeBootstrap, differences, encodeBootstrap, type FileChunks, type RafsImage } from '../../src/index.ts';

/**
 * Changes bootstraps in many ways and reads each: it must be an error that names field and offset, or an image that
 * can be written and read again. Everything else is thrown.
 */

/** Any numbers between 0 and 1, the same for the same seed (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What says something: offsets of bytes that are not zero. */
interface Seed {
  readonly bytes: Buffer;
  readonly said: readonly number[];
}

export class Mutator {
  readonly #seeds: readonly Seed[];
  readonly #random: () => number;

  constructor(seeds: readonly Buffer[], random: () => number) {
    this.#seeds = seeds.map((bytes) => ({
      bytes,
      said: [...bytes.keys()].filter((offset) => bytes[offset] !== 0),
    }));
    this.#random = random;
  }

  next(): Buffer {
    const seed = this.#pick(this.#seeds);
    let bytes: Buffer = Buffer.from(seed.bytes);
    const changes = this.#random() < 0.7 ? 1 : 1 + this.#below(4);
    for (let change = 0; change < changes; change++) bytes = this.#change(bytes, seed);
    return bytes;
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #pick<Item>(items: readonly Item[]): Item {
    return items[this.#below(items.length)] as Item;
  }

  #change(bytes: Buffer, seed: Seed): Buffer {
    const kind = this.#random();
    if (kind < 0.04) return bytes.subarray(0, this.#below(bytes.length + 1));
    if (kind < 0.07) return Buffer.concat([bytes, this.#piece()]);
    // Where something is said, or near.
    const offset = this.#random() < 0.8 ? this.#pick(seed.said) : this.#below(bytes.length);
    if (offset >= bytes.length) return bytes;
    if (kind < 0.25) bytes[offset] = (bytes[offset] as number) ^ (1 << this.#below(8));
    else if (kind < 0.35) bytes[offset] = this.#below(256);
    else if (kind < 0.75) this.#setNumber(bytes, offset);
    else this.#piece().copy(bytes, this.#random() < 0.5 ? offset : offset & ~31);
    return bytes;
  }

  /** A field of 1 to 8 bytes gets a value that is odd, near its own, or that of another field. */
  #setNumber(bytes: Buffer, offset: number): void {
    const width = this.#pick([1, 2, 4, 8]);
    const at = offset - (offset % width);
    if (at + width > bytes.length) return;
    const limit = 2n ** BigInt(8 * width);
    const own = readNumber(bytes, at, width);
    const power = 2n ** BigInt(this.#below(8 * width));
    const from = this.#below(bytes.length / width) * width;
    const other = from + width <= bytes.length ? readNumber(bytes, from, width) : 0n;
    const value = this.#pick([
      0n,
      1n,
      limit - 1n,
      limit / 2n,
      own + 1n,
      own - 1n,
      own + power,
      own ^ power,
      power,
      other,
    ]);
    for (let index = 0; index < width; index++) {
      bytes[at + index] = Number((BigInt.asUintN(8 * width, value) >> BigInt(8 * index)) & 0xffn);
    }
  }

  /** Of any seed: an inode, an entry, a block. */
  #piece(): Buffer {
    const { bytes } = this.#pick(this.#seeds);
    const length = this.#pick([4, 8, 12, 32, 64, 80, 128, 256, 512, 4096]);
    const begin = this.#below(bytes.length / 4) * 4;
    return bytes.subarray(begin, begin + length);
  }
}

function readNumber(bytes: Buffer, offset: number, width: number): bigint {
  let value = 0n;
  for (let index = width - 1; index >= 0; index--) value = value * 256n + BigInt(bytes[offset + index] as number);
  return value;
}

/** Whether `bytes` are an image; throws when they are neither that nor refused as they should be. */
export function readMutation(bytes: Buffer): boolean {
  let image: RafsImage;
  try {
    image = decodeBootstrap(bytes);
  } catch (error) {
    const { code, details } = error as { code?: string; details?: { field?: unknown; offset?: unknown } };
    const { field, offset } = details ?? {};
    const sound = code === 'data-loss' && typeof field === 'string' && Number.isSafeInteger(offset);
    if (!sound || (offset as number) < 0 || (offset as number) > bytes.length) throw error;
    return false;
  }
  const again = decodeBootstrap(encodeBootstrap(image));
  for (const difference of differences(image.root, again.root, sameContent)) {
    throw new Error(`written and read again it is another image: ${JSON.stringify(difference)}`);
  }
  return true;
}

function sameContent(expected: { readonly content: FileChunks }, actual: { readonly content: FileChunks }) {
  const [left, right] = [JSON.stringify(expected.content), JSON.stringify(actual.content)];
  return left === right ? undefined : { expected: left, actual: right };
}
