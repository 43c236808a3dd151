import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Credentials } from '@pantala/oci';
import type { DriverName } from '../driver.ts';
import type { MountRequest } from './mount-request.ts';

/** A blob of a mount. */
export interface RecordedBlob {
  readonly id: string;
  /** Its cache file. */
  readonly path: string;
  /** Bytes of it. */
  readonly size: number;
}

/** What a worker must know of a mount that another one made. */
export interface MountRecord {
  /** A UUID. */
  readonly id: string;
  readonly request: MountRequest;
  /** Given later than the request's, and in place of them. */
  readonly credentials?: Credentials;
  /** SHA-256 of the bootstrap, by which it is kept. */
  readonly bootstrap: string;
  readonly blobs: readonly RecordedBlob[];
  readonly driver: DriverName;
  readonly loop: boolean;
  /** Of the descriptors that make its readers wait. */
  readonly generation: string;
  /** `major:minor` of the mounted file system. */
  readonly device: string;
  /** Whether every blob is there: then it needs nobody. */
  readonly complete: boolean;
  /** Milliseconds since 1970. */
  readonly mountedAt: number;
  /** When it was last found lost and was mounted afresh; undefined when it never was. */
  readonly lostAt?: number;
}

/** Mounts as they are kept: a file for each, replaced as a whole, so that each is there or not after any death. */
export class MountRecords {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  save(record: MountRecord): void {
    const path = this.#path(record.id);
    // It may hold credentials.
    writeFileSync(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }

  remove(id: string): void {
    rmSync(this.#path(id), { force: true });
  }

  all(): MountRecord[] {
    return readdirSync(this.#directory)
      .filter((name) => name.endsWith('.json'))
      .map((name) => JSON.parse(readFileSync(join(this.#directory, name), 'utf8')) as MountRecord)
      .toSorted((a, b) => a.mountedAt - b.mountedAt);
  }

  #path(id: string): string {
    return join(this.#directory, `${id}.json`);
  }
}
