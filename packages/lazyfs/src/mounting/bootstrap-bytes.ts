import { open } from 'node:fs/promises';
import { PantalaError } from '@pantala/base';

/**
 * What a bootstrap's file holds. Disposing it frees the memory at once: a garbage collector hardly sees it, and a worker
 * that rests would keep it for hours.
 */
export interface BootstrapBytes extends Disposable {
  readonly bytes: Uint8Array;
}

/** @throws `not-found`, `data-loss` when the file becomes shorter meanwhile */
export async function readBootstrapFile(path: string): Promise<BootstrapBytes> {
  const file = await open(path).catch((error: unknown) => {
    throw PantalaError.from(error);
  });
  try {
    const bytes = new Uint8Array((await file.stat()).size);
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await file.read(bytes, done, bytes.length - done, done);
      if (bytesRead === 0) throw new PantalaError('data-loss', `${path} ends after ${done} of ${bytes.length} bytes`);
      done += bytesRead;
    }
    return {
      bytes,
      [Symbol.dispose]: () => {
        bytes.buffer.transfer(0);
      },
    };
  } finally {
    await file.close();
  }
}
