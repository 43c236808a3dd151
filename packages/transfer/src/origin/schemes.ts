import { PantalaError } from '@pantala/base';
import type { Origin } from './contract.ts';

/** Origins by the scheme of their URLs; object stores register here. */
export class OriginSchemes {
  readonly #origins: ReadonlyMap<string, Origin>;

  /** @param origins by scheme, without the colon */
  constructor(origins: Readonly<Record<string, Origin>>) {
    this.#origins = new Map(Object.entries(origins));
  }

  /** @throws `unimplemented` for a scheme that nobody serves; names those that are known */
  of(url: URL): Origin {
    const scheme = url.protocol.slice(0, -1);
    const origin = this.#origins.get(scheme);
    if (origin !== undefined) return origin;
    const known = Array.from(this.#origins.keys()).join(', ');
    throw new PantalaError('unimplemented', `nothing here downloads from "${scheme}:" URLs; known are ${known}`);
  }
}
