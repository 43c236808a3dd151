import { Bitmap, type BlockRun, Geometry, lengthOf } from '@pantala/base';
import { expect, test } from 'vitest';
import { Dealer } from '../../src/news/dealer.ts';
import { Deal } from '../../src/selection/holdings.ts';
import { type BlockRequest, Selection } from '../../src/selection/selection.ts';
import { UNIT_BLOCKS } from '../../src/selection/units.ts';

const MEBI = 1024 * 1024;
/** Bytes a millisecond of every link, each way: 200 Mbit/s. */
const RATE = 25_000;
/** Milliseconds from news to the ears of the others. */
const NEWS_DELAY = 25;

interface Transfer {
  readonly from: number;
  readonly to: number;
  readonly request: BlockRequest;
  left: number;
}

/** Equal links under virtual time: uplinks are shared by their transfers, and so are downlinks. */
class Crowd {
  readonly geometry: Geometry;
  readonly #selections: Selection[] = [];
  readonly #held: Bitmap[] = [];
  readonly #dealer: Dealer;
  readonly #news: { readonly at: number; readonly from: number; readonly run: BlockRun }[] = [];
  readonly uploaded: number[];
  readonly finishedAt: (number | undefined)[];
  readonly #peers: number;
  #transfers: Transfer[] = [];
  #seedHas = 0;
  now = 0;

  constructor(length: number, peers: number, seedComplete: boolean) {
    this.geometry = new Geometry(length, 4 * MEBI);
    this.#peers = peers;
    this.#dealer = new Dealer(this.geometry);
    this.uploaded = Array.from({ length: peers + 1 }, () => 0);
    this.finishedAt = Array.from({ length: peers + 1 }, () => undefined);
    for (let peer = 0; peer <= peers; peer++) {
      const selection = new Selection(this.geometry, { host: `host-${peer}` });
      selection.needDigests(false);
      this.#selections.push(selection);
      this.#held.push(new Bitmap(this.geometry.blockCount));
      if (peer > 0) this.#dealer.join(`${peer}`);
      for (let other = 0; other <= peers; other++) {
        if (other !== peer) selection.addParent(`${other}`, { seed: other === 0, wholePieces: false });
      }
    }
    if (seedComplete) this.#seedGrows(this.geometry.blockCount);
  }

  run(): void {
    const wanted = { first: 0, count: this.geometry.blockCount };
    while (this.finishedAt.slice(1).includes(undefined)) {
      this.now++;
      if (this.now > 120_000) throw new Error('the crowd hangs');
      const fetched = Math.min(this.geometry.blockCount, Math.floor((this.now * RATE) / 16_384));
      if (fetched > this.#seedHas) this.#seedGrows(fetched);
      this.#spread();
      if (this.now % 2 === 0) this.#ask(wanted);
      this.#move();
    }
  }

  #seedGrows(blocks: number): void {
    const run = { first: this.#seedHas, count: blocks - this.#seedHas };
    this.#seedHas = blocks;
    this.#news.push({ at: this.now + NEWS_DELAY, from: 0, run });
  }

  #spread(): void {
    while ((this.#news[0]?.at ?? Number.POSITIVE_INFINITY) <= this.now) {
      const news = this.#news.shift();
      if (news === undefined) return;
      for (let peer = 1; peer <= this.#peers; peer++) {
        if (peer === news.from) continue;
        const selection = this.#selections[peer] as Selection;
        selection.parentHolds(`${news.from}`, news.run);
        if (news.from !== 0) continue;
        const deals = this.#dealer.deals(`${peer}`, [news.run]);
        for (const run of deals.assigned) selection.parentDeals('0', run, Deal.assigned);
        for (const run of deals.deferred) selection.parentDeals('0', run, Deal.deferred);
      }
    }
  }

  #ask(wanted: BlockRun): void {
    for (let peer = 1; peer <= this.#peers; peer++) {
      if (this.finishedAt[peer] !== undefined) continue;
      for (const request of (this.#selections[peer] as Selection).next([], wanted, this.now)) {
        const left = lengthOf(this.geometry.runRange(request.run));
        this.#transfers.push({ from: Number(request.parent), to: peer, request, left });
      }
    }
  }

  /** One request of each pair moves at a time, as on a kept connection. */
  #move(): void {
    const active = new Map<string, Transfer>();
    for (const transfer of this.#transfers) {
      const pair = `${transfer.from}>${transfer.to}`;
      if (!active.has(pair)) active.set(pair, transfer);
    }
    const ups = new Map<number, number>();
    const downs = new Map<number, number>();
    for (const { from, to } of active.values()) {
      ups.set(from, (ups.get(from) ?? 0) + 1);
      downs.set(to, (downs.get(to) ?? 0) + 1);
    }
    for (const transfer of active.values()) {
      const rate = Math.min(RATE / (ups.get(transfer.from) ?? 1), RATE / (downs.get(transfer.to) ?? 1));
      transfer.left -= rate;
      this.uploaded[transfer.from] = (this.uploaded[transfer.from] ?? 0) + rate;
      if (transfer.left <= 0) this.#arrived(transfer);
    }
    this.#transfers = this.#transfers.filter(({ left }) => left > 0);
  }

  #arrived({ to, request }: Transfer): void {
    const selection = this.#selections[to] as Selection;
    const held = this.#held[to] as Bitmap;
    selection.held(request.run);
    selection.ended(request.id);
    held.setRun(request.run);
    this.#news.push({ at: this.now + NEWS_DELAY, from: to, run: request.run });
    if (held.count === this.geometry.blockCount) this.finishedAt[to] = this.now;
  }
}

test.each([
  ['the seed has everything', true, 64],
  ['the seed is being filled', false, 64],
  ['the seed is being filled with a layer of usual size', false, 16],
])(
  'six equal peers, %s: each unit leaves the seed about once, and all are done soon after the bound',
  (_, complete, size) => {
    const length = size * MEBI;
    const crowd = new Crowd(length, 6, complete);
    crowd.run();
    const bound = length / RATE;
    const last = Math.max(...crowd.finishedAt.map((at) => at ?? 0));
    const [seed = 0, ...peers] = crowd.uploaded;
    expect(seed / length).toBeLessThan(1.05);
    expect(last / bound).toBeLessThan(1.4);
    expect(Math.max(...peers) / Math.min(...peers)).toBeLessThan(1.8);
    expect(crowd.geometry.blockCount % UNIT_BLOCKS).toBe(0);
  },
);
