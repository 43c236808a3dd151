import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Of `test/fixtures`. */
export function fixture(path: string): Buffer {
  return readFileSync(fixturePath(path));
}

export function fixturePath(path: string): string {
  return join(import.meta.dirname, '..', 'fixtures', path);
}
