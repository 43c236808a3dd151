import { writevSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';

/** Parts that Linux takes at once (IOV_MAX). */
const MAX_PARTS = 1024;

/** Writes all of it where the file's position is. */
export async function writeWhole(file: FileHandle, parts: readonly Uint8Array[]): Promise<void> {
  for (let rest = parts; rest.length > 0; ) {
    const { bytesWritten } = await file.writev(rest.slice(0, MAX_PARTS));
    rest = withoutFirst(rest, bytesWritten);
  }
}

/** The same, while the thread waits. */
export function writeWholeSync(descriptor: number, parts: readonly Uint8Array[]): void {
  for (let rest = parts; rest.length > 0; ) {
    const bytesWritten = writevSync(descriptor, rest.slice(0, MAX_PARTS));
    rest = withoutFirst(rest, bytesWritten);
  }
}

/** What is left when so many bytes have been written. */
function withoutFirst(parts: readonly Uint8Array[], count: number): readonly Uint8Array[] {
  let left = count;
  let index = 0;
  while (index < parts.length && (parts[index] as Uint8Array).length <= left) {
    left -= (parts[index] as Uint8Array).length;
    index += 1;
  }
  const [first, ...others] = parts.slice(index);
  return first === undefined ? [] : [first.subarray(left), ...others];
}
