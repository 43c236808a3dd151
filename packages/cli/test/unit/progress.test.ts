import { stripVTControlCharacters } from 'node:util';
import { describe, expect, it } from 'vitest';
import { progressLine } from '../../src/download/progress-bar.ts';
import { table } from '../../src/output.ts';

const MIB = 1024 * 1024;
const count = { bytes: 40 * MIB, received: 10 * MIB, originBytes: 10 * MIB, peerBytes: 0, localBytes: 0 };
const line = (...args: Parameters<typeof progressLine>) => stripVTControlCharacters(progressLine(...args));

describe('the progress line', () => {
  it('shows share, bytes, rate and time left', () => {
    expect(line('a.iso', count, 2)).toBe(
      'a.iso [=========>------------------------------] 25% 10.0 MiB of 40.0 MiB, 5.0 MiB/s, 6s left',
    );
  });

  it('has an answer before the first byte, at the end and for empty content', () => {
    expect(line('a', { ...count, received: 0 }, 0)).toContain('0% 0 B of 40.0 MiB, 0 B/s, waiting');
    expect(line('a', { ...count, received: 40 * MIB }, 4)).toContain(`[${'='.repeat(39)}>] 100%`);
    expect(line('a', { ...count, bytes: 0, received: 0 }, 1)).toContain('100% 0 B of 0 B');
  });
});

describe('a table', () => {
  it('aligns columns and leaves the last one as it is', () => {
    expect(
      table([
        ['ID', 'URL'],
        ['0123', 'x'],
      ]),
    ).toBe('ID    URL\n0123  x');
  });
});
