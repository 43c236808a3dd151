import { DIGEST_LENGTH } from '@pantala/base';

/** What an item of a table counts. */
export const NONE = 0;
export const UNCONFIRMED = 1;
export const CONFIRMED = 2;

/** Digests of one kind with what they count: a piece's blocks, or a task's pieces. */
export class DigestTable {
  readonly digests: Buffer;
  /** NONE, UNCONFIRMED or CONFIRMED. */
  readonly status: Uint8Array;
  readonly givers: Uint8Array;

  constructor(length: number) {
    this.digests = Buffer.alloc(length * DIGEST_LENGTH);
    this.status = new Uint8Array(length);
    this.givers = new Uint8Array(length);
  }

  get bytes(): number {
    return this.status.length * (DIGEST_LENGTH + 2);
  }

  at(index: number): Buffer {
    return this.digests.subarray(index * DIGEST_LENGTH, (index + 1) * DIGEST_LENGTH);
  }

  put(index: number, digest: Uint8Array, status: number, giver: number): void {
    this.digests.set(digest, index * DIGEST_LENGTH);
    this.status[index] = status;
    this.givers[index] = giver;
  }

  statusAt(index: number): number {
    return this.status[index] as number;
  }

  giverAt(index: number): number {
    return this.givers[index] as number;
  }
}

/** Adds the givers of everything that is there. */
export function collectGivers(table: DigestTable, givers: Set<number>): void {
  for (let index = 0; index < table.status.length; index++) {
    if (table.statusAt(index) !== NONE) givers.add(table.giverAt(index));
  }
}
