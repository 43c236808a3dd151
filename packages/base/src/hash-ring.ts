import { hash } from 'node:crypto';

/** Points of each node on the ring: with this many, the shares of ten nodes differ by about a third at most. */
const POINTS_PER_NODE = 128;

interface Point {
  readonly position: number;
  readonly node: string;
}

/** Consistent hashing: a key keeps its node while others come and go, whatever the order in which they are named. */
export class HashRing {
  readonly nodes: readonly string[];
  readonly #points: readonly Point[];

  constructor(nodes: Iterable<string>) {
    this.nodes = [...new Set(nodes)].sort();
    const points: Point[] = [];
    for (const node of this.nodes) {
      for (let copy = 0; copy < POINTS_PER_NODE; copy++) points.push({ position: positionOf(`${node}#${copy}`), node });
    }
    // Equal positions are as good as impossible, but every member must still decide alike.
    this.#points = points.sort((a, b) => a.position - b.position || (a.node < b.node ? -1 : 1));
  }

  /** The node of `key`; undefined on an empty ring. */
  pick(key: string): string | undefined {
    return this.pickMany(key, 1)[0];
  }

  /** Up to `count` different nodes in the order in which they stand in for each other. */
  pickMany(key: string, count: number): string[] {
    const picked = new Set<string>();
    const wanted = Math.min(count, this.nodes.length);
    const first = this.#firstFrom(positionOf(key));
    for (let step = 0; picked.size < wanted; step++) {
      picked.add((this.#points[(first + step) % this.#points.length] as Point).node);
    }
    return [...picked];
  }

  #firstFrom(position: number): number {
    let low = 0;
    let high = this.#points.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#points[middle] as Point).position < position) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** 48 bits of SHA-256: exact in a double. */
function positionOf(text: string): number {
  return hash('sha256', text, 'buffer').readUIntBE(0, 6);
}
