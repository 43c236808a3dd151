import { hash } from 'node:crypto';
import { constants } from 'node:fs';
import { copyFile, mkdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';
import { MAX_BOOTSTRAP_LENGTH } from '@pantala/rafs';
import { type BootstrapBytes, readBootstrapFile } from './bootstrap-bytes.ts';

/** A bootstrap that is kept. */
export interface KeptBootstrap {
  /** SHA-256 in hex. */
  readonly digest: string;
  /** What the file holds. */
  readonly bytes: BootstrapBytes;
}

/**
 * Bootstraps of mounted images, each a file of our own named by its digest: the kernel reads metadata from it as long
 * as the mount is there, whatever happens to the file that was given.
 */
export class BootstrapStore {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  path(digest: string): string {
    return join(this.#directory, digest);
  }

  /**
   * Takes a copy, and checks that.
   *
   * @param expected SHA-256 in hex; undefined: whatever it is
   * @throws `not-found`; `data-loss` when the digest is another; `invalid-argument` when it is too long
   */
  async add(file: string, expected: string | undefined): Promise<KeptBootstrap> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const { size } = await stat(file).catch((error: unknown) => {
      throw PantalaError.from(error);
    });
    if (size > MAX_BOOTSTRAP_LENGTH) {
      throw new PantalaError('invalid-argument', `${file} has ${size} bytes, no bootstrap has so many`);
    }
    const copy = join(this.#directory, `.new-${process.pid}-${performance.now()}`);
    try {
      await copyFile(file, copy, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL);
      // Of the copy: whoever has the file that was given may go on to change it.
      const bytes = await readBootstrapFile(copy);
      const digest = hash('sha256', bytes.bytes);
      if (expected !== undefined && digest !== expected) {
        throw new PantalaError('data-loss', `bootstrap ${file} has SHA-256 ${digest}, it should have ${expected}`);
      }
      // In place of what is there, which nobody has checked: mounts go on with the file that they have.
      await rename(copy, this.path(digest));
      return { digest, bytes };
    } finally {
      await rm(copy, { force: true });
    }
  }

  async remove(digest: string): Promise<void> {
    await rm(this.path(digest), { force: true });
  }
}
