import { describe, expect, test } from 'vitest';
import { body, END, fixture, header, inPieces, paxHeader, readBytes, readTar } from '../support/tar-blocks.ts';

const long = (length: number) => 'n'.repeat(length);

describe('headers of every format', () => {
  test('a file as POSIX ustar has it', async () => {
    const [entry] = await readBytes(
      header({ name: 'name', prefix: 'some/where', size: 5, mode: '0104755', uid: '0001750', mtime: '14000000000' }),
      body('hello'),
      END,
    );
    expect(entry).toMatchObject({
      kind: 'regular',
      path: 'some/where/name',
      mode: 0o4755,
      uid: 1000,
      gid: 0,
      size: 5,
      mtime: { seconds: 0o14000000000, nanoseconds: 0 },
      content: Buffer.from('hello'),
      offset: 0,
    });
  });

  test.each([
    ['1', 'hardlink'],
    ['2', 'symlink'],
    ['3', 'character'],
    ['4', 'block'],
    ['5', 'directory'],
    ['6', 'fifo'],
    ['7', 'regular'],
    ['\0', 'regular'],
    ['Z', 'regular'],
  ])('type %j is a %s', async (type, kind) => {
    const [entry] = await readBytes(header({ type, link: 'target', major: '0000010', minor: '0000021' }), END);
    expect(entry?.kind).toBe(kind);
    expect(entry?.linkTarget).toBe(type === '1' || type === '2' ? 'target' : '');
    expect([entry?.major, entry?.minor]).toEqual(type === '3' || type === '4' ? [8, 17] : [0, 0]);
  });

  test('before POSIX, a directory is a file whose name ends with a slash', async () => {
    const [entry] = await readBytes(header({ name: 'old/', type: '\0', magic: '' }), END);
    expect(entry).toMatchObject({ kind: 'directory', path: 'old' });
  });

  test('a contiguous file has its content, and a link none whatever size it gives', async () => {
    const entries = await readBytes(
      header({ type: '7', size: 3 }),
      body('abc'),
      header({ type: '1', size: 900, link: 'file', name: 'link' }),
      END,
    );
    expect(entries.map(({ kind, size, content }) => [kind, size, content.toString()])).toEqual([
      ['regular', 3, 'abc'],
      ['hardlink', 0, ''],
    ]);
  });

  test('numbers of base 256, also negative ones, and with spaces around', async () => {
    const [entry] = await readBytes(
      header({
        magic: 'ustar  \0',
        uid: '\x80\0\0\0\xff\xff\xff\xfe',
        gid: '  17 \0  ',
        mtime: `${'\xff'.repeat(11)}\xfb`,
        size: `\x80${'\0'.repeat(10)}\x04`,
      }),
      body('four'),
      END,
    );
    expect(entry).toMatchObject({ uid: 4294967294, gid: 15, mtime: { seconds: -5, nanoseconds: 0 }, size: 4 });
  });

  test('GNU long names and links', async () => {
    const name = `${'d/'.repeat(100)}${long(200)}`;
    const entries = await readBytes(
      header({ name: '././@LongLink', type: 'L', size: name.length + 1, magic: 'ustar  \0' }),
      body(`${name}\0`),
      header({ name: '././@LongLink', type: 'K', size: 301, magic: 'ustar  \0' }),
      body(`${'t'.repeat(300)}\0`),
      header({ name: name.slice(0, 100), type: '2', link: 't'.repeat(100), magic: 'ustar  \0' }),
      header({ name: 'next' }),
      END,
    );
    expect(entries.map((entry) => [entry.path, entry.linkTarget.length])).toEqual([
      [name, 300],
      ['next', 0],
    ]);
  });

  test('a checksum of signed bytes is one, too', async () => {
    const name = 'gr\xfcn';
    const block = header({ name });
    const sum = block.reduce((total, byte) => total + byte, 0) - 256;
    // The checksum's own field counts as spaces.
    const field = [...block.subarray(148, 156)].reduce((total, byte) => total + byte, 0);
    const signed = header({ name, checksum: `${(sum - field + 256).toString(8).padStart(6, '0')}\0 ` });
    expect((await readBytes(signed, END))[0]?.path).toBe(name);
  });
});

describe('pax', () => {
  test('what it says wins over the header, byte for byte', async () => {
    const [entry] = await readBytes(
      paxHeader([
        ['path', 'new\nline/\xff\xfe'],
        ['uid', '4294967295'],
        ['gid', '70000'],
        ['mtime', '-1.5'],
        ['size', '3'],
        ['hdrcharset', 'BINARY'],
        ['SCHILY.xattr.security.capability', '\x01\0\0\x02\n=\n'],
        ['SCHILY.xattr.user.a%3Db%25', ''],
        ['LIBARCHIVE.xattr.user.%C3%A4', 'AP8='],
        ['comment', 'nothing'],
      ]),
      header({ name: 'old', size: 0 }),
      body('new'),
      END,
    );
    expect(entry).toMatchObject({
      path: 'new\nline/\xff\xfe',
      uid: 4294967295,
      gid: 70000,
      mtime: { seconds: -2, nanoseconds: 500_000_000 },
      content: Buffer.from('new'),
    });
    expect([...(entry?.xattrs ?? [])].map(([name, value]) => [name, Buffer.from(value).toString('latin1')])).toEqual([
      ['security.capability', '\x01\0\0\x02\n=\n'],
      ['user.a=b%', ''],
      ['user.\xc3\xa4', '\0\xff'],
    ]);
  });

  test.each([
    ['1.000000001', 1, 1],
    ['1.0000000019', 1, 1],
    ['-1', -1, 0],
    ['-0.0000000001', -1, 999_999_999],
    ['-0.25', -1, 750_000_000],
    ['7.', 7, 0],
    ['0', 0, 0],
  ])('the time %s', async (mtime, seconds, nanoseconds) => {
    const [entry] = await readBytes(paxHeader([['mtime', mtime]]), header({}), END);
    expect(entry?.mtime).toEqual({ seconds, nanoseconds });
  });

  test('global records hold until others come, and an own empty one takes one back', async () => {
    const entries = await readBytes(
      paxHeader(
        [
          ['uid', '5'],
          ['comment', 'git'],
        ],
        'g',
      ),
      header({ name: 'a', uid: '0000007' }),
      paxHeader([['uid', '6']]),
      header({ name: 'b' }),
      paxHeader([['uid', '']]),
      header({ name: 'c', uid: '0000007' }),
      paxHeader([['uid', '']], 'g'),
      header({ name: 'd', uid: '0000007' }),
      END,
    );
    expect(entries.map(({ path, uid }) => `${path}${uid}`)).toEqual(['a5', 'b6', 'c7', 'd7']);
  });
});

describe('names', () => {
  test.each([
    ['/etc/passwd', 'etc/passwd'],
    ['./a//b/./c/', 'a/b/c'],
    ['./', ''],
    ['a/../b', 'b'],
    ['..x/.../y..', '..x/.../y..'],
  ])('%s is %s', async (name, path) => {
    expect((await readBytes(header({ name, type: '5' }), END))[0]?.path).toBe(path);
  });

  test.each(['../x', 'a/../../x', '/../x', '..', 'a/b/../../../c'])('%s is refused by name', async (name) => {
    await expect(readBytes(header({ name }), END)).rejects.toThrow(`"${name}" whose name leaves the root`);
    await expect(readBytes(header({ type: '1', link: name }), END)).rejects.toThrow('leaves the root');
  });

  test('a symbolic link may point anywhere', async () => {
    expect((await readBytes(header({ type: '2', link: '../../x' }), END))[0]?.linkTarget).toBe('../../x');
  });

  test.each([
    ['longer than a name may be', long(256)],
    ['longer than a path may be', `${'a/'.repeat(2048)}`],
    ['with a NUL', 'a\0b'],
  ])('%s', async (_, path) => {
    await expect(readBytes(paxHeader([['path', path]]), header({}), END)).rejects.toMatchObject({
      code: 'invalid-argument',
    });
  });
});

describe('ends', () => {
  test.each([
    ['nothing at all', Buffer.alloc(0), 0],
    ['only zeros', END, 0],
    ['no end', header({}), 1],
    ['one block of zeros', Buffer.concat([header({}), Buffer.alloc(512)]), 1],
    ['garbage behind the end', Buffer.concat([header({}), END, Buffer.from('garbage'.repeat(300))]), 1],
    ['a last block that is not filled', Buffer.concat([header({ size: 3 }), Buffer.from('abc')]), 1],
  ])('%s', async (_, bytes, count) => {
    expect(await readBytes(bytes)).toHaveLength(count);
  });

  test('the source is read to its end', async () => {
    let ended = false;
    async function* source() {
      yield header({});
      yield END;
      yield Buffer.alloc(100_000);
      ended = true;
    }
    await readTar(source());
    expect(ended).toBe(true);
  });

  test.each([
    ['a header', header({}).subarray(0, 400)],
    ['a content', Buffer.concat([header({ size: 600 }), Buffer.alloc(599)])],
    ['an extended header', paxHeader([['path', 'x']]).subarray(0, 600)],
    ['what an extended header is for', paxHeader([['path', 'x']])],
  ])('an archive that is cut off within %s is data-loss', async (_, bytes) => {
    await expect(readBytes(bytes)).rejects.toMatchObject({ code: 'data-loss' });
  });
});

describe('what is refused', () => {
  test.each([
    ['no tar', Buffer.from('x'.repeat(1024)), /byte 0: this is no tar/],
    [
      'a wrong checksum',
      Buffer.concat([header({}), header({ checksum: '000001\0 ' })]),
      /byte 512: a header's checksum/,
    ],
    ['letters for a number', header({ size: 'zzzz' }), /byte 124: the field "size"/],
    ['a size beyond all files', header({ size: `\x80\0\0\0${'\xff'.repeat(8)}`.slice(0, 12) }), /byte/],
    ['a negative size', header({ size: '\xff'.repeat(12) }), /-1 bytes/],
    [
      'a pax record with a wrong length',
      Buffer.concat([header({ type: 'x', size: 10 }), body('12 path=x\n')]),
      /length/,
    ],
    ['a pax record without a name', Buffer.concat([header({ type: 'x', size: 5 }), body('5 =x\n')]), /name/],
    ['an extended header of 2 MiB', header({ type: 'x', size: 2 ** 21 }), /2097152 bytes/],
    ['extended headers without end', Buffer.concat(Array(66).fill(paxHeader([['path', 'x']]))), /in a row/],
    ['another volume', header({ type: 'M' }), /volume/],
    ['a device beyond all numbers', header({ type: '3', major: '7777777', minor: '0000000' }), /major/],
    ['a link to nothing', header({ type: '2' }), /symbolic link/],
  ])('%s', async (_, bytes, message) => {
    await expect(readBytes(bytes, END)).rejects.toThrow(message);
  });

  test('more members than allowed', async () => {
    const bytes = Buffer.concat([header({ name: 'a' }), header({ name: 'b' }), END]);
    await expect(readTar(inPieces(bytes), { maxEntries: 1 })).rejects.toThrow('more than 1 members');
  });

  test('content that was skipped', async () => {
    const { walkTar } = await import('@pantala/oci');
    const bytes = Buffer.concat([header({ size: 2 }), body('ab'), header({ name: 'b' }), END]);
    const walk = walkTar(inPieces(bytes));
    const first = (await walk.next()).value;
    await walk.next();
    expect(() => first?.content()).toThrow(/read or skipped/);
  });
});

describe('however the source comes', () => {
  test.each(['all-entry-type.tar', 'all-entry-type-macos.tar'])('%s in pieces of any length', async (name) => {
    const bytes = fixture(name);
    const whole = await readBytes(bytes);
    const facts = (entries: typeof whole) => entries.map(({ content, ...entry }) => [entry, content.toString('hex')]);
    for (const length of [1, 7, 511, 512, 513, 4096]) {
      expect(facts(await readTar(inPieces(bytes, length)))).toEqual(facts(whole));
    }
  });

  test('files that are skipped in part', async () => {
    const { walkTar } = await import('@pantala/oci');
    const bytes = Buffer.concat([
      header({ name: 'a', size: 1500 }),
      body('x'.repeat(1500)),
      header({ name: 'b', size: 1500 }),
      body('y'.repeat(1500)),
      header({ name: 'c' }),
      END,
    ]);
    const paths: string[] = [];
    for await (const entry of walkTar(inPieces(bytes, 700))) {
      paths.push(entry.path);
      for await (const piece of entry.content()) if (piece.length > 0) break;
    }
    expect(paths).toEqual(['a', 'b', 'c']);
  });
});
