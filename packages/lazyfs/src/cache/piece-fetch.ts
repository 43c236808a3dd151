import { type ByteRange, monotonicNow, PantalaError } from '@pantala/base';
import type { DecodeUnit } from '@pantala/rafs';
import type { Urgency } from '../contract.ts';
import type { ChunkHolder } from './chunk-index.ts';
import type { ChunkLayout, DecodedChunk } from './chunk-layout.ts';
import type { CacheContext } from './context.ts';
import type { BlobFetcher } from './fetcher.ts';
import type { FilledFile } from './filled-file.ts';
import { type Piece, piecesOf } from './piece.ts';

/** Decoded bytes up to which a group that somebody waits for is decoded at once: a thread would take longer to answer. */
const INLINE_LENGTH = 64 * 1024;
/** Groups and decoded bytes that a thread gets at once, when nobody waits for them: somebody else may, behind them. */
const MAX_GROUPS_AT_ONCE = 16;
const MAX_LENGTH_AT_ONCE = 512 * 1024;

export interface PieceFetchParts {
  readonly layout: ChunkLayout;
  readonly file: FilledFile;
  /** The blob itself: it is not searched for its own chunks. */
  readonly holder: ChunkHolder;
  readonly context: CacheContext;
  readonly fetcher: BlobFetcher;
  /** Stored bytes between two groups that are fetched rather than asked around. */
  readonly gap: number;
  readonly urgency: Urgency;
  readonly signal: AbortSignal;
  /** Whether a reader waits for the group by now. */
  readonly isAwaited: (group: number) => boolean;
  /** Whether the group was asked for, or is only fetched along. */
  readonly isWanted: (group: number) => boolean;
  /** Called when a request has been answered: milliseconds to its first byte, bytes, milliseconds from then on. */
  readonly answered: (latency: number, bytes: number, duration: number) => void;
  /** Called once for each group: it is in the file, or why not. */
  readonly settled: (group: number, error: unknown) => void;
}

/** Brings some neighbouring groups into the cache file: from what lies on this disk already, else from a source. */
export class PieceFetch {
  readonly #parts: PieceFetchParts;
  readonly #open = new Set<number>();
  readonly #began = monotonicNow();
  /** Sources whose bytes were wrong. */
  readonly #avoid = new Set<string>();

  constructor(parts: PieceFetchParts) {
    this.#parts = parts;
  }

  /** Never rejects: `settled` is told what happened. */
  async run(groups: readonly number[]): Promise<void> {
    for (const group of groups) this.#open.add(group);
    try {
      for (const group of groups) await this.#findHere(group);
      let isSecondTry = false;
      while (this.#open.size > 0) {
        for (const piece of piecesOf(this.#parts.layout, [...this.#open], this.#parts.gap)) {
          await this.#fetchPiece(piece);
        }
        for (const group of this.#open) if (!this.#parts.isWanted(group)) this.#settle(group, wrongBytes(this.#parts));
        if (this.#open.size === 0) break;
        if (this.#parts.fetcher.sourceNames.every((name) => this.#avoid.has(name))) {
          if (isSecondTry) throw wrongBytes(this.#parts);
          isSecondTry = true;
          this.#avoid.clear();
        }
      }
      for (const source of this.#avoid) this.#parts.fetcher.blame(source);
    } catch (error) {
      for (const group of this.#open) this.#settle(group, error);
    }
  }

  #settle(group: number, error?: unknown): void {
    if (this.#open.delete(group)) this.#parts.settled(group, error);
  }

  /** Chunks that the file has though no journal says so, and chunks of other blobs with the same content. */
  async #findHere(group: number): Promise<void> {
    const { layout, file, context, holder } = this.#parts;
    const { first, count } = layout.group(group);
    for (let chunk = first; chunk < first + count; chunk++) {
      if (file.held.has(chunk)) continue;
      if (file.suspect.has(chunk)) {
        if (await file.confirm(chunk)) this.#note(chunk, chunk, 'cache', 0);
        continue;
      }
      await using found = await context.index.find(layout, chunk, holder);
      if (found === undefined) continue;
      await file.copy(chunk, found);
      this.#note(chunk, chunk, `blob ${found.blobId}`, 0);
    }
    if (file.held.hasAll({ first, count })) this.#settle(group);
  }

  /** Groups whose bytes were wrong are open afterwards, and their source is to be avoided. */
  async #fetchPiece({ groups, stored }: Piece): Promise<void> {
    const { layout, fetcher, urgency, signal, context } = this.#parts;
    const accepted: Promise<void>[] = [];
    let free: (() => void) | undefined;
    let next = 0;
    const askedAt = monotonicNow();
    let firstAt: number | undefined;
    const progress = (received: Uint8Array, source: string) => {
      firstAt ??= monotonicNow();
      const bytesOf = (range: ByteRange) => received.subarray(range.start - stored.start, range.end - stored.start);
      let along: number[] = [];
      let alongLength = 0;
      const hand = () => {
        if (along.length > 0) accepted.push(this.#acceptElsewhere(along, bytesOf, source));
        along = [];
        alongLength = 0;
      };
      for (; next < groups.length; next++) {
        const group = groups[next] as number;
        const range = layout.group(group).stored;
        if (range.end - stored.start > received.length) break;
        const isAwaited = this.#parts.isAwaited(group);
        if (layout.unitOf === undefined || (isAwaited && this.#decodedLength(group) <= INLINE_LENGTH)) {
          accepted.push(this.#accept(group, bytesOf(range), source));
        } else if (isAwaited) accepted.push(this.#acceptElsewhere([group], bytesOf, source));
        else {
          along.push(group);
          alongLength += this.#decodedLength(group);
          if (along.length >= MAX_GROUPS_AT_ONCE || alongLength >= MAX_LENGTH_AT_ONCE) hand();
        }
      }
      hand();
    };
    try {
      const options = { urgency, signal, avoid: this.#avoid, progress };
      const { bytes, source, release } = await fetcher.fetch(layout.blobId, stored, options);
      free = release;
      if (urgency === 'prefetch') {
        context.counters.prefetchRequests++;
        context.counters.prefetchBytes += bytes.length;
      }
      progress(bytes, source);
      const begun = firstAt ?? askedAt;
      this.#parts.answered(begun - askedAt, bytes.length, monotonicNow() - begun);
    } finally {
      await Promise.all(accepted);
      free?.();
    }
  }

  async #accept(group: number, bytes: Uint8Array, source: string): Promise<void> {
    const { layout, file } = this.#parts;
    try {
      let chunks: readonly DecodedChunk[];
      try {
        chunks = await layout.decode(group, bytes);
      } catch (error) {
        if (PantalaError.from(error).code !== 'data-loss') throw error;
        this.#noteWrong(source, PantalaError.from(error).message);
        return;
      }
      await file.write(chunks);
      const { first, count } = layout.group(group);
      this.#note(first, first + count - 1, source, bytes.length);
      this.#settle(group);
    } catch (error) {
      this.#settle(group, error);
    }
  }

  /** The same on a thread, for several groups: they are decoded, checked and written there. */
  async #acceptElsewhere(
    groups: readonly number[],
    bytesOf: (range: ByteRange) => Uint8Array,
    source: string,
  ): Promise<void> {
    const { layout, file, context, isAwaited } = this.#parts;
    const isUrgent = () => groups.some(isAwaited);
    const units = groups.map((group) => ownMemory(layout.unitOf?.(group) as DecodeUnit));
    const range = { start: units[0]?.range.start ?? 0, end: Math.max(...units.map((unit) => unit.range.end)) };
    const decode = async (descriptor: number): Promise<readonly number[]> => {
      const make = () => ({ units, start: range.start, stored: new Uint8Array(bytesOf(range)), descriptor });
      const { wrong, failure } = await context.decoding.run(make, isUrgent);
      if (failure !== undefined) throw new PantalaError(failure.code, failure.message);
      for (const { message } of wrong) this.#noteWrong(source, message);
      const bad = new Set(wrong.map(({ unit }) => unit));
      return groups.filter((_, at) => !bad.has(at));
    };
    try {
      const right = await file.writeBy(range.end - range.start, decode);
      for (const group of right) {
        const { first, count, stored } = layout.group(group);
        this.#note(first, first + count - 1, source, stored.end - stored.start);
        this.#settle(group);
      }
    } catch (error) {
      for (const group of groups) this.#settle(group, error);
    }
  }

  #decodedLength(group: number): number {
    const { layout } = this.#parts;
    const { first, count } = layout.group(group);
    return layout.rangeOf(first + count - 1).end - layout.rangeOf(first).start;
  }

  #noteWrong(source: string, error: string): void {
    const { context, layout } = this.#parts;
    this.#avoid.add(source);
    context.metrics.wrong.add(1, { source });
    context.logger.warn('a source gave wrong bytes', { blob: layout.blobId, source, error });
  }

  #note(first: number, last: number, source: string, fetched: number): void {
    const { context, layout, urgency } = this.#parts;
    const range: ByteRange = { start: layout.rangeOf(first).start, end: layout.rangeOf(last).end };
    const from = source === 'cache' ? 'cache' : fetched === 0 ? 'blob' : 'source';
    context.metrics.filled.add(range.end - range.start, { from });
    if (context.fills.size === 0) return;
    const milliseconds = monotonicNow() - this.#began;
    context.fills.emit({ blobId: layout.blobId, range, source, fetched, urgency, milliseconds });
  }
}

/** A dictionary is a part of all dictionaries of its blob, which would travel with it. */
function ownMemory(unit: DecodeUnit): DecodeUnit {
  const { restart } = unit;
  return restart === undefined
    ? unit
    : { ...unit, restart: { ...restart, dictionary: new Uint8Array(restart.dictionary) } };
}

function wrongBytes({ layout, fetcher }: PieceFetchParts): PantalaError {
  return new PantalaError(
    'data-loss',
    `no source has the right bytes of blob ${layout.blobId} (asked: ${fetcher.sourceNames.join(', ')}); compare the image in the registry with its manifest`,
  );
}
