import { type ByteString, shown } from '@pantala/base';

/** Something that could not be restored, of one or more files. */
export interface Loss {
  /** `owner`, `device`, `xattr security.*` and the like. */
  readonly what: string;
  /** Files that lack it. */
  readonly count: number;
  /** The first of them, as people read it. */
  readonly path: string;
  /** Why, as the system said it of the first. */
  readonly reason: string;
}

/** Counts what is lost, by kind: never more than a handful of entries, whatever the size of the tree. */
export class Losses {
  readonly #losses = new Map<string, { what: string; count: number; path: string; reason: string }>();

  add(what: string, path: ByteString, reason: string): void {
    const known = this.#losses.get(what);
    if (known === undefined) this.#losses.set(what, { what, count: 1, path: shown(path), reason });
    else known.count++;
  }

  get list(): readonly Loss[] {
    return [...this.#losses.values()];
  }
}
