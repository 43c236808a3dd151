import type { ByteString } from '@pantala/base';
import type { ByteFeed } from '../compression/byte-feed.ts';
import { cutOff, malformed } from './errors.ts';
import { BLOCK, type HeaderBlock, numberAt } from './header.ts';
import { MAX_SPARSE_RUNS } from './limits.ts';
import { type PaxRecords, paxNumber } from './pax.ts';

/** Where a sparse file's data lies: runs in order, that do not overlap; what is between them is zero. */
export interface SparseMap {
  /** Bytes of the file with its holes. */
  readonly size: number;
  /** Offset and length of each run of data, in pairs. Runs without a byte are left out. */
  readonly runs: readonly number[];
  /** Bytes of the runs together. */
  readonly held: number;
}

class MapBuilder {
  readonly #runs: number[] = [];
  readonly #offset: number;
  #end = 0;
  #held = 0;
  #count = 0;

  constructor(offset: number) {
    this.#offset = offset;
  }

  add(offset: number, length: number): void {
    if (++this.#count > MAX_SPARSE_RUNS)
      throw malformed(this.#offset, `a sparse file has more than ${MAX_SPARSE_RUNS} runs`);
    if (offset < this.#end) throw malformed(this.#offset, 'the runs of a sparse file overlap or are not in order');
    this.#end = offset + length;
    if (!Number.isSafeInteger(this.#end)) throw malformed(this.#offset, 'a sparse file has a run beyond all sizes');
    if (length === 0) return;
    this.#held += length;
    this.#runs.push(offset, length);
  }

  finish(size: number): SparseMap {
    if (this.#end > size) throw malformed(this.#offset, 'a sparse file has data behind its end');
    return { size, runs: this.#runs, held: this.#held };
  }
}

/** Where the older formats keep the first four runs and what follows them (GNU tar's manual, star(5)). */
const GNU_FIELDS = { runs: 386, extended: 482, realSize: 483 } as const;
const STAR_FIELDS = { runs: 356, extended: 355, realSize: 452 } as const;
const RUNS_IN_HEADER = 4;
const RUNS_IN_EXTENSION = 21;
const EXTENSION_FLAG = 504;

/**
 * The map of a member of type `S`, whose further runs stand in blocks behind its header.
 *
 * @throws `invalid-argument`, `data-loss` when the archive ends within it
 */
export async function olderSparseMap(header: HeaderBlock, feed: ByteFeed): Promise<SparseMap> {
  const fields = header.format === 'star' ? STAR_FIELDS : GNU_FIELDS;
  const map = new MapBuilder(header.offset);
  addRuns(map, header.bytes, fields.runs, RUNS_IN_HEADER, header.offset);
  const size = numberAt(header.bytes, fields.realSize, 12);
  if (size === undefined || size < 0) throw malformed(header.offset, 'a sparse file has no size');
  let more = header.bytes[fields.extended];
  while (more !== 0) {
    const { position } = feed;
    if (!(await feed.hold(BLOCK))) throw cutOff(position, 'the map of a sparse file goes on');
    const block = feed.take(BLOCK);
    addRuns(map, block, 0, RUNS_IN_EXTENSION, position);
    more = block[EXTENSION_FLAG];
  }
  return map.finish(size);
}

function addRuns(map: MapBuilder, block: Buffer, first: number, count: number, position: number): void {
  for (let run = 0; run < count; run++) {
    const at = first + 24 * run;
    // The list ends at the first field that is empty.
    if (block[at + 12] === 0) return;
    const offset = numberAt(block, at, 12);
    const length = numberAt(block, at + 12, 12);
    if (offset === undefined || length === undefined || offset < 0 || length < 0)
      throw malformed(position + at, 'a run of a sparse file is no pair of numbers');
    map.add(offset, length);
  }
}

/** What the records `GNU.sparse.*` of a pax header say. */
export interface PaxSparse {
  /** The file's own name: the header's is made up in some versions. */
  readonly name: ByteString | undefined;
  /** Absent where the map stands in front of the data (version 1.0). */
  readonly map: SparseMap | undefined;
  readonly size: number;
}

/** @throws `invalid-argument` when they contradict each other */
export function paxSparse(records: PaxRecords, offset: number): PaxSparse | undefined {
  let name: ByteString | undefined;
  let size: number | undefined;
  let major = 0;
  let list: ByteString | undefined;
  let known = false;
  let pending: number | undefined;
  const map = new MapBuilder(offset);
  for (const [key, value] of records) {
    if (!key.startsWith('GNU.sparse.')) continue;
    known = true;
    const field = key.slice('GNU.sparse.'.length);
    if (field === 'name') name = value;
    else if (field === 'major') major = paxNumber(value, key, offset);
    else if (field === 'realsize' || field === 'size') size = paxNumber(value, key, offset);
    else if (field === 'map') list = value;
    else if (field === 'offset') pending = paxNumber(value, key, offset);
    else if (field === 'numbytes') {
      if (pending === undefined) throw malformed(offset, 'a run of a sparse file has no offset');
      map.add(pending, paxNumber(value, key, offset));
      pending = undefined;
    }
  }
  if (!known) return undefined;
  if (size === undefined) throw malformed(offset, 'a sparse file has no size');
  if (major > 1) throw malformed(offset, `a sparse file has the unknown version ${major}`);
  if (major === 1) return { name, size, map: undefined };
  if (list !== undefined && list !== '') addList(map, list, offset);
  return { name, size, map: map.finish(size) };
}

function addList(map: MapBuilder, list: ByteString, offset: number): void {
  const numbers = list.split(',', 2 * MAX_SPARSE_RUNS + 2);
  if (numbers.length % 2 !== 0) throw malformed(offset, 'the map of a sparse file has an odd number of entries');
  for (let at = 0; at < numbers.length; at += 2) {
    const [start = '', length = ''] = [numbers[at], numbers[at + 1]];
    map.add(paxNumber(start, 'GNU.sparse.map', offset), paxNumber(length, 'GNU.sparse.map', offset));
  }
}

/** Bytes of one number in the map of version 1.0: digits and a newline. */
const MAX_DIGITS = 20;

/**
 * The map that version 1.0 has in front of the data: decimal numbers, one a line, in whole blocks.
 *
 * @param stored bytes of map and data together; what the map takes of them is returned
 */
export async function leadingSparseMap(
  feed: ByteFeed,
  size: number,
  stored: number,
): Promise<{ readonly map: SparseMap; readonly taken: number }> {
  const { position } = feed;
  const map = new MapBuilder(position);
  let block: Buffer = Buffer.alloc(0);
  let at = 0;
  let taken = 0;
  const byte = async (): Promise<number> => {
    if (at === block.length) {
      if (taken + BLOCK > stored) throw malformed(position, 'the map of a sparse file is longer than its data');
      if (!(await feed.hold(BLOCK))) throw cutOff(feed.position, 'the map of a sparse file goes on');
      block = feed.take(BLOCK);
      taken += BLOCK;
      at = 0;
    }
    return block[at++] as number;
  };
  const number = async (): Promise<number> => {
    let value = 0;
    for (let digits = 0; digits < MAX_DIGITS; digits++) {
      // Only at the end of a block is there something to wait for.
      const next = at < block.length ? (block[at++] as number) : await byte();
      if (next === 0x0a && digits > 0) {
        if (Number.isSafeInteger(value)) return value;
        break;
      }
      if (next < 0x30 || next > 0x39) break;
      value = value * 10 + next - 0x30;
    }
    throw malformed(position, 'the map of a sparse file holds something that is no number');
  };
  const runs = await number();
  if (runs > MAX_SPARSE_RUNS) throw malformed(position, `a sparse file has more than ${MAX_SPARSE_RUNS} runs`);
  for (let run = 0; run < runs; run++) {
    const offset = await number();
    map.add(offset, await number());
  }
  return { map: map.finish(size), taken };
}
