import type { ByteRange } from '@pantala/base';
import type { ChunkLayout } from './chunk-layout.ts';

/** What is fetched by one request: groups of chunks that lie near each other in the stored blob. */
export interface Piece {
  /** In order. */
  readonly groups: readonly number[];
  readonly stored: ByteRange;
}

export interface PieceLimits {
  /** Stored bytes that one request may have, unless a single group has more. */
  readonly length: number;
  /** The same for a request that goes on behind what is wanted. */
  readonly along: number;
  /** The chunk behind the last that is wanted. */
  readonly wantedEnd: number;
  /** Stored bytes that nobody wants between two groups: less is cheaper than a request of their own. */
  readonly gap: number;
}

/**
 * The group that is wanted, and those after it that are lacking too, as far as they lie near: programs mostly read on
 * where they are, and files that were added together are read together.
 */
export function planPiece(
  layout: ChunkLayout,
  group: number,
  limits: PieceLimits,
  lacking: (group: number) => boolean,
): Piece {
  const { stored } = layout.group(group);
  const groups = [group];
  let end = stored.end;
  for (let next = group + 1; next < layout.groupCount; next++) {
    const { first, stored: range } = layout.group(next);
    // Contexts of one gzip stream share the byte in which one ends and the next begins.
    const near = range.start >= stored.start && range.end >= end && range.start - end <= limits.gap;
    const limit = first < limits.wantedEnd ? limits.length : limits.along;
    if (!near || range.end - stored.start > limit) break;
    if (!lacking(next)) continue;
    groups.push(next);
    end = range.end;
  }
  return { groups, stored: { start: stored.start, end } };
}

/** What is left of a piece, in as many as the gaps between its groups demand. */
export function piecesOf(layout: ChunkLayout, groups: readonly number[], gap: number): Piece[] {
  const pieces: { groups: number[]; stored: { start: number; end: number } }[] = [];
  for (const group of groups) {
    const { start, end } = layout.group(group).stored;
    const last = pieces.at(-1);
    if (last !== undefined && start >= last.stored.start && start - last.stored.end <= gap) {
      last.groups.push(group);
      last.stored.end = Math.max(end, last.stored.end);
    } else pieces.push({ groups: [group], stored: { start, end } });
  }
  return pieces;
}
