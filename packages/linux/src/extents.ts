import { constants } from 'node:os';
import { callNow, checked } from './libc.ts';

/** Of lseek(2), unistd.h. */
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** A run of data in a file. Bytes. */
export interface DataExtent {
  readonly offset: number;
  readonly length: number;
}

/**
 * What of an open file is data, in order: between the runs are holes. A file system that knows no holes says that all
 * of it is data.
 *
 * @param size bytes of the file
 * @throws LinuxError; `unimplemented`
 */
export function* dataExtents(file: number, size: number): Generator<DataExtent, void, undefined> {
  for (let end = 0; end < size; ) {
    const found = callNow('lseek', [file, end, SEEK_DATA]);
    if (found === -constants.errno.ENXIO) return;
    const offset = checked('lseek', [file, end, 'SEEK_DATA'], found);
    end = Math.min(size, checked('lseek', [file, offset, 'SEEK_HOLE'], callNow('lseek', [file, offset, SEEK_HOLE])));
    if (end <= offset) return;
    yield { offset, length: end - offset };
  }
}
