import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { gzipBlocks } from '../../src/images/gzip-blocks.ts';

const BLOCK = 512 * 1024;

async function* inPieces(bytes: Buffer, length: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

async function collected(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** Hexadecimal digits in no order: half of it is left when it is compressed. */
function digits(length: number): Buffer {
  const lines = Array.from({ length: Math.ceil(length / 64) }, (_, index) =>
    createHash('sha256').update(`${index}`).digest('hex'),
  );
  return Buffer.from(lines.join('')).subarray(0, length);
}

test.each([0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 7 * BLOCK + 12_345])(
  '%i bytes are one gzip member, the same however they come',
  async (length) => {
    const bytes = digits(length);
    const made = await collected(gzipBlocks(inPieces(bytes, 1 << 20)));
    expect(gunzipSync(made).equals(bytes)).toBe(true);
    expect(execFileSync('gzip', ['-dc'], { input: made, maxBuffer: 1 << 26 }).equals(bytes)).toBe(true);
    // One header: some readers stop after the first member.
    expect(made.indexOf(made.subarray(0, 10), 1)).toBe(-1);
    for (const step of [4096, 999_983])
      expect((await collected(gzipBlocks(inPieces(bytes, step)))).equals(made)).toBe(true);
  },
);

test('a cut costs next to nothing', async () => {
  // The same 20 KiB all the time: a block that did not know the one before would have to say them again.
  const bytes = Buffer.concat(Array.from({ length: 500 }, () => digits(20_000)));
  const made = await collected(gzipBlocks(inPieces(bytes, 1 << 20)));
  const whole = execFileSync('gzip', ['-6', '-nc'], { input: bytes, maxBuffer: 1 << 26 });
  expect(made.length).toBeLessThan(1.02 * whole.length);
});

test('what the source throws comes out', async () => {
  async function* broken() {
    yield digits(2 * BLOCK);
    throw new Error('no more');
  }
  await expect(collected(gzipBlocks(broken()))).rejects.toThrow('no more');
});
