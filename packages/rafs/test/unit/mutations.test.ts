import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { encodeBootstrap } from '../../src/index.ts';
import { fixturePath } from '../support/fixtures.ts';
import { arbitraryImage } from '../support/images.ts';

const FULL = process.env.PANTALA_FULL === '1';
const COUNT = FULL ? 100_000 : 5000;
const GROWTH = 256 * 2 ** 20;

/** Of our own writing, beside those of the real tool: small ones, since each byte has its chance then. */
const OWN = 12;
const OWN_LENGTH = 64 * 1024;

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'pantala-mutations-'));
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

it(
  `${COUNT} changed bootstraps are refused or read as images, in bounded memory`,
  async () => {
    const seed = FULL ? Math.floor(Math.random() * 2 ** 32) : 20260720;
    const theirs = ['vhead-y-zstd', 'l-merge-tar', 'm-prefetch-fs', 'm-batch-zstd', 't-targz-ref', 'm-cs0x10000-lz4']
      .map((name) => fixturePath(`nydus-tools/${name}/bootstrap`))
      .concat(fixturePath('nydus/rafs-v6/rafs-v6-2.2.boot'), fixturePath('nydus-tools/malformed/valid.boot'));
    const ours = fc
      .sample(arbitraryImage, { numRuns: OWN * 3, seed })
      .map((image) => encodeBootstrap(image))
      .filter((bytes) => bytes.length <= OWN_LENGTH)
      .slice(0, OWN)
      .map((bytes, index) => {
        const path = join(folder, String(index));
        writeFileSync(path, bytes);
        return path;
      });
    expect(ours.length).toBeGreaterThan(OWN / 2);
    const { stdout } = await promisify(execFile)(
      process.execPath,
      [join(import.meta.dirname, '../support/mutate.ts'), String(seed), String(COUNT), ...theirs, ...ours],
      // A loop without an end would end here.
      { timeout: FULL ? 3_000_000 : 300_000 },
    );
    const { accepted, growth } = JSON.parse(stdout) as { accepted: number; growth: number };
    expect(growth).toBeLessThan(GROWTH);
    // Some changes say nothing: of reserved bytes, names, times, owners, of which some images have more than others.
    expect(accepted).toBeGreaterThan(COUNT / 100);
    expect(accepted).toBeLessThan((COUNT * 3) / 4);
  },
  FULL ? 3_100_000 : 310_000,
);
