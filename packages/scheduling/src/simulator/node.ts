import { Bitmap } from '@pantala/base';
import { hash32, mix32 } from '../hash.ts';
import type { Timeline } from './timeline.ts';

/** Bytes that travel together: 16 blocks. */
export const UNIT_LENGTH = 256 * 1024;

/**
 * Units that a child asks of one parent at once. With eight parents, each more is one more unit that waits in every
 * parent's queue while others could have had it: 32 peers take 1.2 of the bound with one, 1.37 with two, 1.49 with three.
 */
const OUTSTANDING_UNITS = 1;

/** Milliseconds from holding a unit to the children's knowing it. */
const NEWS_DELAY = 25;

/** Milliseconds that a child lets units lie at a seed that are meant for others first. */
const DEFERRED_PATIENCE = 500;

export interface Link {
  /** Bytes a second. */
  readonly up: number;
  readonly down: number;
}

interface Asked {
  readonly child: Node;
  readonly unit: number;
}

/** One machine: what it holds, whom it asks, and its link, on which one unit travels after the other. */
export class Node {
  readonly id: string;
  readonly seed: boolean;
  readonly link: Link;
  readonly held: Bitmap;
  /** What the children know of. */
  readonly told: Bitmap;
  alive = true;
  uploaded = 0;
  finishedAt: number | undefined;
  parents: Node[] = [];
  readonly children = new Set<Node>();
  readonly #timeline: Timeline;
  /** Makes its order of equally rare units its own. */
  readonly #order: number;
  readonly #onHeld: (node: Node, unit: number, from: Node | undefined) => void;
  readonly #asked = new Set<number>();
  readonly #outstanding = new Map<Node, number>();
  readonly #queue: Asked[] = [];
  #sending = false;
  #receiveFreeAt = 0;
  /** A seed's shares: which child is to have which unit first. */
  readonly #assigned = new Map<number, Node>();
  readonly #shares = new Map<Node, number>();
  #idleSince: number | undefined;

  constructor(
    id: string,
    seed: boolean,
    link: Link,
    units: number,
    timeline: Timeline,
    onHeld: (node: Node, unit: number, from: Node | undefined) => void,
  ) {
    this.id = id;
    this.#order = hash32(id);
    this.seed = seed;
    this.link = link;
    this.held = new Bitmap(units);
    this.told = new Bitmap(units);
    this.#timeline = timeline;
    this.#onHeld = onHeld;
  }

  /** The complete new set of parents. */
  follow(parents: readonly Node[]): void {
    for (const parent of this.parents) parent.children.delete(this);
    this.parents = parents.filter((parent) => parent.alive);
    for (const parent of this.parents) parent.children.add(this);
    this.ask();
  }

  receive(unit: number, from: Node | undefined): void {
    this.#asked.delete(unit);
    if (!this.alive || !this.held.set(unit)) return;
    if (this.seed) this.#assign(unit);
    this.#onHeld(this, unit, from);
    this.#timeline.after(NEWS_DELAY, () => {
      this.told.set(unit);
      for (const child of this.children) child.ask();
    });
  }

  /** Asks parents with room for what they have and this node lacks. */
  ask(): void {
    if (!this.alive || this.held.count === this.held.length) return;
    let asked = false;
    for (const parent of this.parents) {
      if (!parent.alive) continue;
      while ((this.#outstanding.get(parent) ?? 0) < OUTSTANDING_UNITS) {
        const unit = this.#choose(parent);
        if (unit === undefined) break;
        this.#asked.add(unit);
        this.#outstanding.set(parent, (this.#outstanding.get(parent) ?? 0) + 1);
        parent.#serve({ child: this, unit });
        asked = true;
      }
    }
    if (asked || this.#asked.size > 0) {
      this.#idleSince = undefined;
    } else if (this.#idleSince === undefined) {
      this.#idleSince = this.#timeline.now;
      this.#timeline.after(DEFERRED_PATIENCE, () => this.ask());
    }
  }

  die(): void {
    this.alive = false;
    for (const child of this.children) {
      for (const { unit } of this.#queue.filter((asked) => asked.child === child)) child.#asked.delete(unit);
      child.#outstanding.delete(this);
    }
    this.#queue.length = 0;
    for (const child of this.children) child.ask();
  }

  /** Whether a unit is neither held nor known at any living parent. */
  lacks(unit: number): boolean {
    return (
      !this.held.has(unit) &&
      !this.#asked.has(unit) &&
      !this.parents.some((parent) => parent.alive && parent.held.has(unit))
    );
  }

  /** Units meant for this node first, then the rarest; of equally rare ones the order is each node's own. */
  #choose(parent: Node): number | undefined {
    const patient = this.#idleSince === undefined || this.#timeline.now - this.#idleSince < DEFERRED_PATIENCE;
    let best: number | undefined;
    let bestCount = Number.POSITIVE_INFINITY;
    let bestTie = 0;
    for (let unit = parent.told.next(true, 0); unit < parent.told.length; unit = parent.told.next(true, unit + 1)) {
      if (this.held.has(unit) || this.#asked.has(unit)) continue;
      const meantFor = parent.#assigned.get(unit);
      if (meantFor === this) return unit;
      if (patient && meantFor?.alive === true) continue;
      const count = this.#holders(unit);
      // What others can give is not asked of a seed: it has better things to send.
      if (parent.seed && count > 1 && patient) continue;
      const tie = mix32(this.#order ^ unit);
      if (count > bestCount || (count === bestCount && tie >= bestTie)) continue;
      best = unit;
      bestCount = count;
      bestTie = tie;
    }
    return best;
  }

  #holders(unit: number): number {
    let count = 0;
    for (const parent of this.parents) if (parent.told.has(unit)) count++;
    return count;
  }

  /** A new unit is meant for the child with the smallest share. */
  #assign(unit: number): void {
    let least: Node | undefined;
    for (const child of this.children) {
      if (!child.alive || child.seed || child.held.has(unit)) continue;
      if (least === undefined || (this.#shares.get(child) ?? 0) < (this.#shares.get(least) ?? 0)) least = child;
    }
    if (least === undefined) return;
    this.#assigned.set(unit, least);
    this.#shares.set(least, (this.#shares.get(least) ?? 0) + 1);
  }

  #serve(asked: Asked): void {
    this.#queue.push(asked);
    if (!this.#sending) this.#send();
  }

  #send(): void {
    const asked = this.#queue.shift();
    this.#sending = asked !== undefined && this.alive;
    if (asked === undefined || !this.alive) return;
    this.#timeline.after((UNIT_LENGTH * 1000) / this.link.up, () => {
      this.#deliver(asked);
      this.#send();
    });
  }

  #deliver({ child, unit }: Asked): void {
    const { now } = this.#timeline;
    if (!this.alive) {
      child.#asked.delete(unit);
      return;
    }
    this.uploaded += UNIT_LENGTH;
    this.#assigned.delete(unit);
    // The child's link takes one unit after the other, and begins with this one as it was sent.
    const duration = (UNIT_LENGTH * 1000) / child.link.down;
    const begun = now - Math.min(duration, (UNIT_LENGTH * 1000) / this.link.up);
    child.#receiveFreeAt = Math.max(child.#receiveFreeAt, begun) + duration;
    this.#timeline.after(child.#receiveFreeAt - now, () => {
      child.#outstanding.set(this, Math.max(0, (child.#outstanding.get(this) ?? 0) - 1));
      child.receive(unit, this);
      child.ask();
    });
  }
}
