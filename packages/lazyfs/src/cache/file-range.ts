import { read as readCallback, writev as writevCallback } from 'node:fs';
import { promisify } from 'node:util';
import { type ByteRange, lengthOf, PantalaError } from '@pantala/base';

const readOnce = promisify(readCallback);

/** @throws `data-loss` when the file ends before the range */
export async function readRange(file: number, range: ByteRange): Promise<Buffer> {
  const data = Buffer.allocUnsafeSlow(lengthOf(range));
  for (let done = 0; done < data.length; ) {
    const { bytesRead } = await readOnce(file, data, done, data.length - done, range.start + done);
    if (bytesRead === 0) throw new PantalaError('data-loss', `the file ends at byte ${range.start + done}`);
    done += bytesRead;
  }
  return data;
}

/** Writes buffers one after the other from `position` on. */
export async function writeRange(file: number, buffers: readonly Uint8Array[], position: number): Promise<void> {
  let rest = [...buffers];
  for (let offset = position; rest.length > 0; ) {
    let written = await writevOnce(file, rest, offset);
    offset += written;
    while (rest.length > 0 && written >= (rest[0] as Uint8Array).length) written -= (rest.shift() as Uint8Array).length;
    if (written > 0) rest = [(rest[0] as Uint8Array).subarray(written), ...rest.slice(1)];
  }
}

function writevOnce(file: number, buffers: readonly Uint8Array[], position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    // At most as many as the kernel takes (IOV_MAX).
    writevCallback(file, buffers.slice(0, MAX_BUFFERS), position, (error, written) => {
      if (error === null) resolve(written);
      else reject(error);
    });
  });
}

/** Buffers of one writev(2): IOV_MAX of Linux. */
const MAX_BUFFERS = 1024;
