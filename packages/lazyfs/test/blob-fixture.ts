import { createHash } from 'node:crypto';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { type ByteRange, PantalaError, sha256Hex } from '@pantala/base';
import type { BlobFetcher, ChunkGroup, ChunkLayout, DecodedChunk, Fetched, FetchOptions } from '@pantala/lazyfs';

const ALIGNMENT = 4096;

/** A blob in both forms, with the layout that leads from one to the other. */
export interface BlobFixture {
  readonly layout: ChunkLayout;
  readonly stored: Buffer;
  readonly decoded: Buffer;
}

export interface FixtureOptions {
  /** Bytes of each chunk. */
  readonly lengths: readonly number[];
  /** Chunks of each group, in turn. Default 1. */
  readonly groups?: readonly number[];
  readonly seed: number;
  /** Content of chunks, where it is not to be random. */
  readonly content?: (chunk: number, length: number) => Buffer;
}

/** Bytes that look random and depend on the seed alone. */
export function noise(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = (seed * 2_654_435_761 + 1) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    // Half of the bits, so that it can be compressed.
    bytes[i] = (state >>> 24) & 0x5f;
  }
  return bytes;
}

export function blobFixture(options: FixtureOptions): BlobFixture {
  const contents = options.lengths.map(
    (length, chunk) => options.content?.(chunk, length) ?? noise(length, options.seed * 1000 + chunk),
  );
  const ranges: ByteRange[] = [];
  let end = 0;
  for (const content of contents) {
    ranges.push({ start: end, end: end + content.length });
    end = Math.ceil((end + content.length) / ALIGNMENT) * ALIGNMENT;
  }
  const decoded = Buffer.alloc(end);
  for (const [chunk, content] of contents.entries()) content.copy(decoded, ranges[chunk]?.start);
  const groups: ChunkGroup[] = [];
  const parts: Buffer[] = [];
  let offset = 0;
  for (let first = 0, turn = 0; first < contents.length; turn++) {
    const sizes = options.groups ?? [1];
    const count = Math.min(contents.length - first, sizes[turn % sizes.length] ?? 1);
    const part = deflateRawSync(Buffer.concat(contents.slice(first, first + count)), { level: 1 });
    groups.push({ first, count, stored: { start: offset, end: offset + part.length } });
    parts.push(part);
    offset += part.length;
    first += count;
  }
  const stored = Buffer.concat(parts);
  const digests = contents.map((content) => createHash('sha256').update(content).digest());
  return { layout: new FixtureLayout(sha256Hex(stored), decoded.length, ranges, groups, digests), stored, decoded };
}

class FixtureLayout implements ChunkLayout {
  readonly blobId: string;
  readonly size: number;
  readonly #ranges: readonly ByteRange[];
  readonly #groups: readonly ChunkGroup[];
  readonly #digests: readonly Buffer[];

  constructor(
    blobId: string,
    size: number,
    ranges: readonly ByteRange[],
    groups: readonly ChunkGroup[],
    digests: readonly Buffer[],
  ) {
    this.blobId = blobId;
    this.size = size;
    this.#ranges = ranges;
    this.#groups = groups;
    this.#digests = digests;
  }

  get chunkCount(): number {
    return this.#ranges.length;
  }

  get groupCount(): number {
    return this.#groups.length;
  }

  touching(range: ByteRange): { first: number; count: number } {
    const touched = this.#ranges.flatMap(({ start, end }, chunk) =>
      start < range.end && Math.ceil(end / ALIGNMENT) * ALIGNMENT > range.start ? [chunk] : [],
    );
    return { first: touched[0] ?? 0, count: touched.length };
  }

  rangeOf(chunk: number): ByteRange {
    return this.#ranges[chunk] as ByteRange;
  }

  digestOf(chunk: number): Uint8Array {
    return this.#digests[chunk] as Buffer;
  }

  groupOf(chunk: number): number {
    return this.#groups.findIndex(({ first, count }) => chunk >= first && chunk < first + count);
  }

  group(index: number): ChunkGroup {
    return this.#groups[index] as ChunkGroup;
  }

  matches(chunk: number, content: Uint8Array): boolean {
    return createHash('sha256')
      .update(content)
      .digest()
      .equals(this.#digests[chunk] as Buffer);
  }

  async decode(group: number, stored: Uint8Array): Promise<readonly DecodedChunk[]> {
    const { first, count } = this.group(group);
    let bytes: Buffer;
    try {
      bytes = inflateRawSync(stored);
    } catch (error) {
      throw new PantalaError('data-loss', `group ${group} cannot be inflated`, { cause: error });
    }
    const chunks: DecodedChunk[] = [];
    let offset = 0;
    for (let index = first; index < first + count; index++) {
      const { start, end } = this.rangeOf(index);
      const content = bytes.subarray(offset, offset + end - start);
      offset += end - start;
      if (!this.matches(index, content)) throw new PantalaError('data-loss', `chunk ${index} has another digest`);
      chunks.push({ index, content });
    }
    return chunks;
  }
}

export interface Served {
  readonly range: ByteRange;
  readonly urgency: string;
  readonly source: string;
}

/** Sources in memory: each answers by a function of the range, in the order of their names. */
export class MemoryFetcher implements BlobFetcher {
  readonly served: Served[] = [];
  readonly blamed: string[] = [];
  readonly #sources: ReadonlyMap<string, (range: ByteRange, options: FetchOptions) => Promise<Uint8Array>>;

  constructor(sources: Readonly<Record<string, (range: ByteRange, options: FetchOptions) => Promise<Uint8Array>>>) {
    this.#sources = new Map(Object.entries(sources));
  }

  get sourceNames(): string[] {
    return [...this.#sources.keys()];
  }

  async fetch(_blobId: string, range: ByteRange, options: FetchOptions): Promise<Fetched> {
    for (const [source, read] of this.#sources) {
      if (options.avoid.has(source)) continue;
      this.served.push({ range, urgency: options.urgency, source });
      return { bytes: await read(range, options), source };
    }
    throw new PantalaError('unavailable', 'no source is left');
  }

  blame(source: string): void {
    this.blamed.push(source);
  }
}

/** A source that has the right bytes. */
export function truthful(stored: Buffer): (range: ByteRange) => Promise<Uint8Array> {
  return async ({ start, end }) => stored.subarray(start, end);
}

/** A source whose bytes are wrong in one place of every answer. */
export function lying(stored: Buffer): (range: ByteRange) => Promise<Uint8Array> {
  return async ({ start, end }) => {
    const bytes = Buffer.from(stored.subarray(start, end));
    bytes[Math.floor(bytes.length / 2)] = (bytes[Math.floor(bytes.length / 2)] ?? 0) ^ 0xff;
    return bytes;
  };
}
