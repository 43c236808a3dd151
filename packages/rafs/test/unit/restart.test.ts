import { deflateRawSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeFrom } from '../../src/blob/restart.ts';

const CONTENT = Buffer.from(Array.from({ length: 9000 }, (_, i) => (i * i * 31 + (i >> 3)) % 97));
const NOTHING = new Uint8Array();

/** A stream that begins `bits` bits before a byte border: what a restart point within a byte finds. */
function shifted(stream: Uint8Array, bits: number): { byte: number; rest: Uint8Array } {
  const all = BigInt(`0x${Buffer.from(stream).reverse().toString('hex')}`);
  const byte = Number(all & ((1n << BigInt(bits)) - 1n)) << (8 - bits);
  const hex = (all >> BigInt(bits)).toString(16);
  return { byte, rest: Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex').reverse() };
}

describe('gzip from the middle', () => {
  test.each([0, 1, 2, 3, 4, 5, 6, 7])('begins %i bits before a byte', (bits) => {
    const dictionary = CONTENT.subarray(0, 4000);
    const stream = deflateRawSync(CONTENT.subarray(4000), { dictionary });
    const { byte, rest } = bits === 0 ? { byte: 0, rest: stream } : shifted(stream, bits);
    const back = decodeFrom({ bits, byte, dictionary }, rest, 5000);
    expect(Buffer.from(back).equals(CONTENT.subarray(4000))).toBe(true);
  });

  test('input that breaks off gives what it has, and an error when that is too little', () => {
    const stream = deflateRawSync(CONTENT, { level: 1 });
    const half = stream.subarray(0, stream.length >> 1);
    const restart = { bits: 0, byte: 0, dictionary: NOTHING };
    expect(Buffer.from(decodeFrom(restart, half, 300)).equals(CONTENT.subarray(0, 300))).toBe(true);
    expect(() => decodeFrom(restart, half, CONTENT.length)).toThrow('ends after');
  });

  test('goes on in the next member, past its header with everything in it', () => {
    const name = Buffer.from('layer.tar\0');
    const plain = gzipSync(CONTENT.subarray(3000));
    const flags = Buffer.from([0x1f, 0x8b, 8, 2 + 4 + 8 + 16, 0, 0, 0, 0, 0, 3]);
    const extra = Buffer.from([3, 0, 1, 2, 3]);
    const second = Buffer.concat([flags, extra, name, Buffer.from('said\0'), Buffer.from([9, 9]), plain.subarray(10)]);
    const first = gzipSync(CONTENT.subarray(0, 3000)).subarray(10);
    const back = decodeFrom({ bits: 0, byte: 0, dictionary: NOTHING }, Buffer.concat([first, second]), CONTENT.length);
    expect(Buffer.from(back).equals(CONTENT)).toBe(true);
  });

  test('whatever the input, there are the wanted bytes or an error', () => {
    const stream = Buffer.concat([gzipSync(CONTENT).subarray(10), gzipSync(CONTENT)]);
    fc.assert(
      fc.property(fc.nat(stream.length - 1), fc.nat(255), fc.nat(7), fc.nat(30_000), (at, byte, bits, length) => {
        const damaged = Buffer.from(stream);
        damaged[at] = byte;
        try {
          expect(decodeFrom({ bits, byte, dictionary: CONTENT }, damaged, length)).toHaveLength(length);
        } catch (error) {
          expect(error).toMatchObject({ code: 'data-loss' });
        }
      }),
    );
  });
});
