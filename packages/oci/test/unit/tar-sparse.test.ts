import { describe, expect, test } from 'vitest';
import { body, END, header, paxHeader, readBytes } from '../support/tar-blocks.ts';

describe('sparse files', () => {
  const expected = Buffer.concat([
    Buffer.alloc(1024),
    Buffer.from('A'.repeat(512)),
    Buffer.alloc(2048),
    Buffer.from('tail'),
  ]);
  const data = body(`${'A'.repeat(512)}tail`);
  const octal = (value: number) => `${value.toString(8).padStart(11, '0')}\0`;

  test.each([
    [
      'GNU 0.0',
      [
        ['GNU.sparse.size', '3588'],
        ['GNU.sparse.numblocks', '2'],
        ['GNU.sparse.offset', '1024'],
        ['GNU.sparse.numbytes', '512'],
        ['GNU.sparse.offset', '3584'],
        ['GNU.sparse.numbytes', '4'],
      ],
    ],
    [
      'GNU 0.1',
      [
        ['GNU.sparse.size', '3588'],
        ['GNU.sparse.numblocks', '2'],
        ['GNU.sparse.name', 'real'],
        ['GNU.sparse.map', '1024,512,3584,4'],
      ],
    ],
  ] as const)('%s', async (_, records) => {
    const [entry] = await readBytes(paxHeader(records), header({ name: 'real', size: 516 }), data, END);
    expect(entry).toMatchObject({ path: 'real', size: 3588, content: expected, holes: 3072 });
  });

  test('GNU 1.0, whose map stands in front of the data', async () => {
    const map = body('2\n1024\n512\n3584\n4\n');
    const entries = await readBytes(
      paxHeader([
        ['GNU.sparse.major', '1'],
        ['GNU.sparse.minor', '0'],
        ['GNU.sparse.name', 'real'],
        ['GNU.sparse.realsize', '3588'],
      ]),
      header({ name: 'GNUSparseFile.1/real', size: 512 + 516 }),
      map,
      data,
      header({ name: 'next' }),
      END,
    );
    expect(entries[0]).toMatchObject({ path: 'real', size: 3588, content: expected, holes: 3072 });
    expect(entries[1]?.path).toBe('next');
  });

  test('the older GNU format, with a block of further runs', async () => {
    const runs = (from: number, count: number) =>
      Array.from({ length: count }, (_, index) => `${octal((from + index) * 1024)}${octal(1)}`).join('');
    const extension = Buffer.alloc(512);
    extension.write(runs(4, 2) + octal(8192) + octal(0), 'latin1');
    const raw = { 386: runs(0, 4), 482: '\x01', 483: octal(8192) };
    const entries = await readBytes(
      header({ type: 'S', size: 6, magic: 'ustar  \0', raw }),
      extension,
      body('abcdef'),
      header({ name: 'next' }),
      END,
    );
    const content = Buffer.alloc(8192);
    for (const [index, letter] of 'abcdef'.split('').entries()) content.write(letter, index * 1024);
    expect(entries[0]).toMatchObject({ kind: 'regular', size: 8192, content });
    expect(entries[1]?.path).toBe('next');
  });

  test("star's, whose fields lie elsewhere", async () => {
    const raw = { 356: octal(1024) + octal(512) + octal(3584) + octal(4), 452: octal(3588), 508: 'tar\0' };
    const [entry] = await readBytes(header({ type: 'S', size: 516, raw }), data, END);
    expect(entry).toMatchObject({ size: 3588, content: expected, holes: 3072 });
  });

  test.each([
    ['runs that overlap', '10,5,14,5', 10],
    ['runs in the wrong order', '20,5,10,5', 10],
    ['data behind the end', '4000,10', 10],
    ['a map that does not have what is stored', '10,5', 10],
    ['an odd number of entries', '10,5,7', 5],
    ['a run that is no number', '10,x', 5],
  ])('%s are refused', async (_, map, size) => {
    const records = [
      ['GNU.sparse.size', '4000'],
      ['GNU.sparse.map', map],
    ] as const;
    await expect(readBytes(paxHeader(records), header({ size }), body('0123456789'), END)).rejects.toMatchObject({
      code: 'invalid-argument',
    });
  });
});
