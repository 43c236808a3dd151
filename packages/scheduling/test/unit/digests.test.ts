import { blockDigest, pieceDigest } from '@pantala/base';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { DigestNews, DigestReport } from '../../src/index.ts';
import { only, PIECE_LENGTH, TASK, World } from './world.ts';

const BLOCKS = 256;

/** Digests of a piece's blocks; `variant` makes content that differs. */
function blocksOf(piece: number, variant = 0): Buffer {
  return Buffer.concat(
    Array.from({ length: BLOCKS }, (_, block) => blockDigest(Buffer.from(`${piece} ${block} ${variant}`))),
  );
}

function pieces(variant: number, ...numbers: number[]): DigestReport {
  return {
    contentLength: 10 * PIECE_LENGTH,
    pieceLength: PIECE_LENGTH,
    pieces: numbers.map((number) => ({ number, digest: pieceDigest(blocksOf(number, variant)) })),
    blocks: [],
  };
}

function blocks(variant: number, piece: number, first: number, count: number): DigestReport {
  const digests = blocksOf(piece, variant).subarray(first * 32, (first + count) * 32);
  return { ...pieces(variant), blocks: [{ first: piece * BLOCKS + first, count, digests }] };
}

function world(): World {
  const made = new World();
  made.host('seed', { seed: true, pantala: true });
  for (const host of ['a', 'b', 'c', 'd']) made.host(host, { pantala: true });
  return made;
}

function report(in_: World, hostId: string, what: DigestReport) {
  return in_.send({ type: 'digestsReported', hostId, taskId: TASK, report: what });
}

function watch(in_: World, hostId: string): DigestNews[] {
  return only(in_.send({ type: 'digestsWatched', hostId, taskId: TASK }), 'digestNews').map(({ news }) => news);
}

describe('digests', () => {
  test('of a seed are confirmed, told to who watches, and told whole to who comes later', () => {
    const here = world();
    watch(here, 'a');
    const told = only(report(here, 'seed', blocks(0, 0, 0, 16)), 'digestNews');
    expect(told).toMatchObject([{ hostIds: ['a'], news: { confirmed: true, pieces: [] } }]);
    expect(told[0]?.news.blocks[0]?.digests).toEqual(blocksOf(0).subarray(0, 16 * 32));
    report(here, 'seed', pieces(0, 1));
    const late = watch(here, 'b');
    expect(late.flatMap((news) => news.pieces.map(({ number }) => number))).toEqual([1]);
    expect(late.flatMap((news) => news.blocks.map(({ first, count }) => [first, count]))).toEqual([[0, 16]]);
  });

  test('of blocks are dropped once their piece is whole', () => {
    const here = world();
    report(here, 'seed', blocks(0, 0, 0, BLOCKS));
    expect(here.core.counts.digestBytes).toBeGreaterThan(BLOCKS * 32);
    report(here, 'seed', pieces(0, 0));
    expect(here.core.counts.digestBytes).toBeLessThan(BLOCKS * 32);
    expect(watch(here, 'a')).toMatchObject([{ confirmed: true, blocks: [], pieces: [{ number: 0 }] }]);
  });

  test('of one peer that fetched are unconfirmed until a second agrees', () => {
    const here = world();
    watch(here, 'd');
    expect(only(report(here, 'a', pieces(0, 3)), 'digestNews')).toMatchObject([{ news: { confirmed: false } }]);
    expect(report(here, 'a', pieces(0, 3))).toEqual([]);
    expect(only(report(here, 'b', pieces(0, 3)), 'digestNews')).toMatchObject([{ news: { confirmed: true } }]);
  });

  test('of a liar are void when a seed contradicts them, and the liar serves nobody any more', () => {
    const here = world();
    here.register('a', { needBackToSource: true });
    watch(here, 'd');
    report(here, 'a', pieces(666, 3, 4));
    const decided = report(here, 'seed', pieces(0, 3));
    expect(decided.map(({ type }) => type).slice(0, 2)).toEqual(['digestsVoid', 'digestNews']);
    const now = only(decided, 'digestNews').flatMap(({ news }) => news.pieces);
    expect(now).toEqual([{ number: 3, digest: pieceDigest(blocksOf(3)) }]);
    expect(here.core.task(TASK)?.blockedHosts.has('a')).toBe(true);
    expect(report(here, 'a', pieces(666, 7))).toEqual([]);
  });

  test('of a liar that comes after the seed are not taken', () => {
    const here = world();
    watch(here, 'd');
    report(here, 'seed', pieces(0, 3));
    expect(only(report(here, 'a', pieces(666, 3, 5)), 'digestsVoid')).toHaveLength(1);
    expect(watch(here, 'b').flatMap((news) => news.pieces)).toEqual([{ number: 3, digest: pieceDigest(blocksOf(3)) }]);
    expect(here.core.task(TASK)?.blockedHosts.has('a')).toBe(true);
  });

  test('of a liar lose against two that agree', () => {
    const here = world();
    watch(here, 'd');
    report(here, 'a', pieces(666, 3));
    expect(report(here, 'b', pieces(0, 3))).toEqual([]);
    const decided = report(here, 'c', pieces(0, 3));
    expect(decided.map(({ type }) => type)).toEqual(['digestsVoid', 'digestNews']);
    expect(only(decided, 'digestNews')[0]?.news).toMatchObject({ confirmed: true });
    expect(here.core.task(TASK)?.blockedHosts.has('a')).toBe(true);
  });

  test('are void when the whole does not match, and what another said instead counts from then on', () => {
    const here = world();
    watch(here, 'd');
    report(here, 'a', pieces(666, 3));
    report(here, 'b', pieces(0, 3));
    const decided = here.send({ type: 'wholeDigestMismatch', hostId: 'd', taskId: TASK });
    expect(only(decided, 'digestsVoid')).toHaveLength(1);
    expect(only(decided, 'digestNews')[0]?.news).toMatchObject({
      confirmed: false,
      pieces: [{ number: 3, digest: pieceDigest(blocksOf(3)) }],
    });
    expect(here.core.task(TASK)?.blockedHosts.has('a')).toBe(true);
    expect(here.send({ type: 'wholeDigestMismatch', hostId: 'd', taskId: TASK })).toEqual([]);
  });

  test('of a whole piece that its blocks contradict make their giver a liar', () => {
    const here = world();
    report(here, 'a', pieces(666, 0));
    const decided = report(here, 'seed', blocks(0, 0, 0, BLOCKS));
    expect(here.core.task(TASK)?.blockedHosts.has('a')).toBe(true);
    expect(decided).toEqual([]);
    expect(watch(here, 'd')).toMatchObject([
      { confirmed: true, pieces: [{ number: 0, digest: pieceDigest(blocksOf(0)) }], blocks: [] },
    ]);
  });

  test('after a restart come from who holds the pieces: a seed is believed, hearsay never confirms', () => {
    const here = world();
    const facts = { contentLength: 10 * PIECE_LENGTH, pieceLength: PIECE_LENGTH, digest: undefined };
    const hold = (hostId: string, blockCount: number) =>
      here.send({
        type: 'heldTasks',
        hostId,
        tasks: [{ taskId: TASK, peerId: `${hostId}-peer`, facts, blockCount, report: pieces(0, 1) }],
        completeList: false,
      });
    hold('a', BLOCKS);
    hold('b', BLOCKS);
    expect(watch(here, 'd')).toMatchObject([{ confirmed: false }]);
    hold('seed', BLOCKS);
    expect(watch(here, 'd')).toMatchObject([{ confirmed: true }]);
  });

  test('that were void are never handed out again, whatever is reported in whatever order', () => {
    const act = fc.record({
      host: fc.constantFrom('a', 'b', 'c', 'seed'),
      piece: fc.nat(2),
      kind: fc.constantFrom('piece', 'blocks', 'mismatch'),
      by: fc.constantFrom('a', 'b', 'c', 'd'),
    });
    fc.assert(
      fc.property(fc.array(act, { maxLength: 40 }), (acts) => {
        const here = world();
        watch(here, 'd');
        // Each host has a truth of its own, so that every digest in use tells who gave it.
        const variants: Record<string, number> = { seed: 0, a: 1, b: 2, c: 3 };
        const blocked = new Set<string>();
        for (const { host, piece, kind, by } of acts) {
          const variant = variants[host] as number;
          const decided =
            kind === 'mismatch'
              ? here.send({ type: 'wholeDigestMismatch', hostId: by, taskId: TASK })
              : report(here, host, kind === 'piece' ? pieces(variant, piece) : blocks(variant, piece, 0, 2));
          for (const known of here.core.task(TASK)?.blockedHosts ?? []) blocked.add(known);
          for (const { news } of only(decided, 'digestNews')) {
            for (const { number, digest } of news.pieces) {
              for (const liar of blocked) {
                expect(pieceDigest(blocksOf(number, variants[liar])).equals(Buffer.from(digest))).toBe(false);
              }
            }
          }
        }
      }),
      { numRuns: 40 },
    );
  });
});
