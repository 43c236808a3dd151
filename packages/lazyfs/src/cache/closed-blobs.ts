import { readdirSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { BLOB_ID, DATA_SUFFIX, TABLE_SUFFIX } from './blob-files.ts';
import type { FoundChunk } from './chunk-index.ts';
import { prefixOf, readPrefixes, readRecords } from './chunk-table.ts';
import { readRange } from './file-range.ts';
import { PrefixTable } from './prefix-table.ts';

/** Chunks that are known of blobs that nobody uses: 16 bytes of memory each. */
const MAX_CHUNKS = 500_000;

/** Chunks of cached blobs that nobody uses at the moment: an image that was mounted before has much of its successor's. */
export class ClosedBlobs {
  readonly #directory: string;
  readonly #isOpen: (id: string) => boolean;
  #tables: Promise<Map<string, PrefixTable>> | undefined;

  /** @param isOpen blobs that are in use are found in another way */
  constructor(directory: string, isOpen: (id: string) => boolean) {
    this.#directory = directory;
    this.#isOpen = isOpen;
  }

  /** Whether it may look: not while files may be mounted whose blobs nobody has opened yet. */
  enabled = false;

  /** Forgets what it knows: blobs were opened, closed or evicted. */
  changed(): void {
    this.#tables = undefined;
  }

  async find(
    digest: Uint8Array,
    length: number,
    matches: (content: Uint8Array) => boolean,
  ): Promise<FoundChunk | undefined> {
    if (!this.enabled) return undefined;
    this.#tables ??= this.#load();
    for (const [id, table] of await this.#tables) {
      const candidates = table.find(prefixOf(digest));
      if (candidates.length === 0 || this.#isOpen(id)) continue;
      // Where it was evicted meanwhile, or cannot be read, it has nothing to give.
      const found = await this.#findIn(id, table.count, candidates, { digest, length, matches }).catch(() => undefined);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  async #findIn(
    id: string,
    count: number,
    candidates: readonly number[],
    wanted: {
      readonly digest: Uint8Array;
      readonly length: number;
      readonly matches: (content: Uint8Array) => boolean;
    },
  ): Promise<FoundChunk | undefined> {
    const records = await readRecords(join(this.#directory, id + TABLE_SUFFIX), count, candidates);
    const same = records.filter(({ length, digest }) => length === wanted.length && digest.equals(wanted.digest));
    if (same.length === 0) return undefined;
    await using stack = new AsyncDisposableStack();
    const file = stack.use(await open(join(this.#directory, id + DATA_SUFFIX)));
    for (const { start, length } of same) {
      const content = await readRange(file.fd, { start, end: start + length });
      // A hole, or a chunk that was lost: the journal is not asked, the digest is.
      if (!wanted.matches(content)) continue;
      const owned = stack.move();
      return {
        blobId: id,
        descriptor: file.fd,
        start,
        content,
        [Symbol.asyncDispose]: () => owned.disposeAsync(),
      };
    }
    return undefined;
  }

  /** The tables of what was used last, as many as there is room for. */
  async #load(): Promise<Map<string, PrefixTable>> {
    const found = readdirSync(this.#directory).flatMap((name) => {
      const id = name.slice(0, 64);
      if (!BLOB_ID.test(id) || name !== id + TABLE_SUFFIX || this.#isOpen(id)) return [];
      const data = statSync(join(this.#directory, id + DATA_SUFFIX), { throwIfNoEntry: false });
      return data === undefined ? [] : [{ id, changedAt: data.mtimeMs }];
    });
    const tables = new Map<string, PrefixTable>();
    let room = MAX_CHUNKS;
    for (const { id } of found.toSorted((a, b) => b.changedAt - a.changedAt)) {
      const prefixes = await readPrefixes(join(this.#directory, id + TABLE_SUFFIX));
      if (prefixes === undefined || prefixes.length > room) continue;
      room -= prefixes.length;
      tables.set(id, new PrefixTable(prefixes));
    }
    return tables;
  }
}
