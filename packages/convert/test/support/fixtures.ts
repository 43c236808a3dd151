import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Images that the real nydus-image made; their README says what each is. */
const NYDUS_TOOLS = join(import.meta.dirname, '..', '..', '..', 'rafs', 'test', 'fixtures', 'nydus-tools');

export function fixture(...parts: readonly string[]): string {
  return join(NYDUS_TOOLS, ...parts);
}

export function fixtureBootstrap(name: string): Uint8Array {
  return readFileSync(fixture(name, 'bootstrap'));
}
