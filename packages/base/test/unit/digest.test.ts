import {
  blockDigest,
  crc32,
  DIGEST_LENGTH,
  formatContentDigest,
  formatCrc32,
  PantalaError,
  parseContentDigest,
  parseCrc32,
  pieceDigest,
  sha256Hex,
} from '@pantala/base';
import { describe, expect, test } from 'vitest';

describe('digests', () => {
  test('the functions are those of the standards', () => {
    expect(sha256Hex('abc')).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
    // Test vector of BLAKE3 for no input, and the check value of CRC-32.
    expect(blockDigest(new Uint8Array()).toString('hex')).toBe(
      'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262',
    );
    expect(crc32(Buffer.from('123456789'))).toBe(0xcbf43926);
    expect(crc32(Buffer.from('6789'), crc32(Buffer.from('12345')))).toBe(0xcbf43926);
  });

  test('a piece digest tells one list of block digests from another', () => {
    const digests = Buffer.concat([blockDigest(Buffer.from('a')), blockDigest(Buffer.from('b'))]);
    expect(pieceDigest(digests)).toHaveLength(DIGEST_LENGTH);
    const other = Buffer.concat([digests.subarray(DIGEST_LENGTH), digests.subarray(0, DIGEST_LENGTH)]);
    expect(pieceDigest(other).equals(pieceDigest(digests))).toBe(false);
  });

  test('content digests are read as they are written and nothing else is', () => {
    const sha256 = `sha256:${'0123456789abcdef'.repeat(4)}`;
    expect(formatContentDigest(parseContentDigest(sha256))).toBe(sha256);
    for (const text of [
      '',
      'sha256:',
      'sha256',
      `sha256:${'g'.repeat(64)}`,
      `${sha256}0`,
      `md5:${'0'.repeat(32)}`,
      sha256.toUpperCase(),
    ]) {
      expect(() => parseContentDigest(text)).toThrowError(expect.objectContaining({ code: 'invalid-argument' }));
    }
  });

  test('crc32 on the wire', () => {
    expect(parseCrc32(formatCrc32(0xffff_ffff))).toBe(0xffff_ffff);
    for (const text of ['crc32:', 'crc32:4294967296', 'crc32:-1', 'sha256:1', 'crc32:1x']) {
      expect(parseCrc32(text)).toBeUndefined();
    }
  });
});

test('anything thrown becomes one kind of error', () => {
  const own = new PantalaError('data-loss', 'x');
  expect(PantalaError.from(own)).toBe(own);
  expect(PantalaError.from(AbortSignal.abort().reason).code).toBe('cancelled');
  expect(PantalaError.from(new DOMException('late', 'TimeoutError')).code).toBe('deadline-exceeded');
  expect(PantalaError.from(Object.assign(new Error('full'), { code: 'ENOSPC' }))).toMatchObject({
    code: 'disk-full',
    details: { errno: 'ENOSPC' },
  });
  expect(PantalaError.from('text')).toMatchObject({ code: 'internal', message: 'text' });
});
