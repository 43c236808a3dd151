import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { byteString, byteStringOf, bytesOf, shown } from '../../src/byte-string.ts';

describe('byte strings', () => {
  it('hold any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        expect(bytesOf(byteString(bytes))).toEqual(Buffer.from(bytes));
      }),
    );
  });

  it('sort like their bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array(), fc.uint8Array(), (a, b) => {
        const [left, right] = [byteString(a), byteString(b)];
        expect(left < right ? -1 : left > right ? 1 : 0).toBe(Buffer.compare(a, b));
      }),
    );
  });

  it('are shown as the text that they are, on one line', () => {
    expect(shown(byteStringOf('Grüße.txt'))).toBe('Grüße.txt');
    expect(shown(byteStringOf('two\nlines\x1b[0m\\'))).toBe('two\\nlines\\x1b[0m\\\\');
    expect(shown(byteString(Uint8Array.of(0x61, 0xff, 0x5c)))).toBe('a\\xff\\\\');
  });
});
