import { fstatSync, read as readCallback, write as writeCallback, writeSync } from 'node:fs';
import { promisify } from 'node:util';
import { type ByteRange, lengthOf, PantalaError } from '@pantala/base';
import type { InodeFacts } from './journal-format.ts';

/** Bytes that are written on this thread: into the page cache that takes less than to wake another one. */
const SMALL_WRITE = 32 * 1024;

const readOnce = promisify(readCallback);
const writeOnce = promisify(writeCallback);

/** @throws `data-loss` when the file ends before the range */
export async function readRange(file: number, range: ByteRange): Promise<Buffer> {
  const data = Buffer.allocUnsafe(lengthOf(range));
  for (let done = 0; done < data.length; ) {
    const { bytesRead } = await readOnce(file, data, done, data.length - done, range.start + done);
    if (bytesRead === 0) throw new PantalaError('data-loss', `a stored file ends at byte ${range.start + done}`);
    done += bytesRead;
  }
  return data;
}

/** @param makeRoom asked once when the disk is full; the write is tried again when it frees something */
export async function writeAt(
  file: number,
  data: Buffer,
  position: number,
  makeRoom: (bytes: number) => Promise<boolean>,
): Promise<void> {
  let asked = false;
  for (let done = 0; done < data.length; ) {
    try {
      const left = data.length - done;
      done +=
        left <= SMALL_WRITE
          ? writeSync(file, data, done, left, position + done)
          : (await writeOnce(file, data, done, left, position + done)).bytesWritten;
    } catch (thrown) {
      const error = PantalaError.from(thrown);
      if (error.code !== 'disk-full' || asked || !(await makeRoom(data.length))) throw error;
      asked = true;
    }
  }
}

/** Facts of an open file's inode as they are now. */
export function factsOf(file: number): InodeFacts {
  const { ino, size, mtimeNs, ctimeNs } = fstatSync(file, { bigint: true });
  return { inode: ino, size, modifiedNs: mtimeNs, changedNs: ctimeNs };
}

/** Whether nothing says that the content is another. */
export function sameContent(a: InodeFacts, b: InodeFacts): boolean {
  return a.inode === b.inode && a.size === b.size && a.modifiedNs === b.modifiedNs;
}
