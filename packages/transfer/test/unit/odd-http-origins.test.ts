import type { ByteRange } from '@pantala/base';
import { describe, expect, it } from 'vitest';
import { OriginError } from '../../src/index.ts';
import { CONTENT, failure, fetched, open, PART, RANGE, serve } from '../support/http-content.ts';
import { contentOf } from '../support/origin-conformance.ts';
import { response, scriptedServer } from '../support/scripted-server.ts';

describe('odd origins', () => {
  it('without ranges: skips to the start, stops at the end, and does not ask for a range again', async () => {
    await using server = await scriptedServer(() => response(200, {}, CONTENT));
    await using origin = open();
    expect(await origin.stat({ url: server.url, headers: {} })).toMatchObject({
      contentLength: CONTENT.length,
      acceptsRanges: false,
    });
    expect((await fetched(origin, server.url, RANGE)).equals(PART)).toBe(true);
    expect(server.requests.map(({ headers }) => headers.range)).toEqual(['bytes=0-0', undefined]);
  });

  it('chunked without a length', async () => {
    const chunks = [CONTENT.subarray(0, 1), CONTENT.subarray(1, 70_000), CONTENT.subarray(70_000)];
    const body = Buffer.concat([
      Buffer.from('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'),
      ...chunks.flatMap((chunk) => [Buffer.from(`${chunk.length.toString(16)};x=y\r\n`), chunk, Buffer.from('\r\n')]),
      Buffer.from('0\r\nTrailer: 1\r\n\r\n'),
    ]);
    await using server = await scriptedServer(() => body);
    await using origin = open();
    const stat = await origin.stat({ url: server.url, headers: {} });
    expect(stat).toMatchObject({ contentLength: undefined, acceptsRanges: false });
    expect((await fetched(origin, server.url)).equals(CONTENT)).toBe(true);
    expect((await fetched(origin, server.url, RANGE)).equals(PART)).toBe(true);
    expect((await fetched(origin, server.url)).equals(CONTENT)).toBe(true);
  });

  it('chunked and cut before the last chunk: unavailable', async () => {
    await using server = await scriptedServer((_, socket) => {
      socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n');
      return undefined;
    });
    await using origin = open();
    expect((await failure(fetched(origin, server.url))).code).toBe('unavailable');
  });

  it('HTTP/1.0: the end of the connection is the end of the body', async () => {
    await using server = await scriptedServer((_, socket) => {
      socket.end(Buffer.concat([Buffer.from('HTTP/1.0 200 OK\r\n\r\n'), CONTENT]));
      return undefined;
    });
    await using origin = open();
    expect((await origin.stat({ url: server.url, headers: {} })).contentLength).toBeUndefined();
    expect((await fetched(origin, server.url)).equals(CONTENT)).toBe(true);
  });

  it('416 to every range: asked for everything', async () => {
    await using server = await scriptedServer((request) =>
      request.headers.range === undefined
        ? response(200, {}, CONTENT)
        : response(416, { 'Content-Range': `bytes */${CONTENT.length}` }),
    );
    for (const statFirst of [true, false]) {
      await using origin = open();
      if (statFirst) {
        expect(await origin.stat({ url: server.url, headers: {} })).toMatchObject({
          contentLength: CONTENT.length,
          acceptsRanges: false,
        });
      }
      expect((await fetched(origin, server.url, RANGE)).equals(PART)).toBe(true);
    }
  });

  it('a truncated body: unavailable after the bytes that came', async () => {
    await using server = await scriptedServer((request, socket) => {
      socket.end(serve(request).subarray(0, 40_000));
      return undefined;
    });
    await using origin = open();
    await using body = await origin.fetch({ url: server.url, headers: {}, range: RANGE });
    let got = 0;
    const read = async () => {
      for await (const chunk of body.chunks) {
        expect(chunk.equals(PART.subarray(got, got + chunk.length))).toBe(true);
        got += chunk.length;
      }
    };
    expect((await failure(read())).code).toBe('unavailable');
    expect(got).toBeGreaterThan(30_000);
  });

  const wrong: [string, Buffer][] = [
    ['another Content-Range', response(206, { 'Content-Range': 'bytes 0-49999/200000' }, PART)],
    ['no Content-Range', response(206, {}, PART)],
    ['a shorter Content-Range', response(206, { 'Content-Range': 'bytes 100000-100009/200000' }, '0123456789')],
    ['another Content-Length', response(206, { 'Content-Range': 'bytes 100000-149999/200000' }, 'short')],
    ['a shorter whole', response(200, {}, CONTENT.subarray(0, 120_000))],
    ['contradicting lengths', Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello')],
    ['no HTTP', Buffer.from('SSH-2.0-OpenSSH_9.2\r\n\r\n')],
    ['too many headers', Buffer.from(`HTTP/1.1 200 OK\r\n${'a: b\r\n'.repeat(300)}\r\n`)],
    ['a head without end', Buffer.from(`HTTP/1.1 200 OK\r\na: ${'b'.repeat(70_000)}`)],
    ['a folded header', Buffer.from('HTTP/1.1 200 OK\r\na: b\r\n c\r\nContent-Length: 0\r\n\r\n')],
  ];
  for (const [name, answer] of wrong) {
    it(`${name}: an error for a range`, async () => {
      await using server = await scriptedServer(() => answer);
      await using origin = open({ attempts: 1 });
      expect((await failure(fetched(origin, server.url, RANGE))).code).toBe('origin');
    });
  }

  it('a content coding: only all of it, fetched at once, is one content', async () => {
    await using server = await scriptedServer(() => response(200, { 'Content-Encoding': 'gzip' }, CONTENT));
    await using origin = open();
    const stat = await origin.stat({ url: server.url, headers: {} });
    expect(stat).toMatchObject({ contentLength: undefined, acceptsRanges: false });
    await using body = await origin.fetch({ url: server.url, headers: {} });
    expect(body.headers['content-encoding']).toBe('gzip');
    expect((await contentOf(body)).equals(CONTENT)).toBe(true);
    expect(server.requests.at(-1)?.headers['accept-encoding']).toBe('identity');
    for (const range of [RANGE, { start: 0, end: CONTENT.length }]) {
      expect(await failure(fetched(origin, server.url, range))).toMatchObject({
        code: 'data-loss',
        details: { changed: true },
      });
    }
  });

  /** Of stored bytes, or of what was encoded for this answer alone. */
  const encodedPart = (tag: string, body: Buffer | string, { start, end }: ByteRange) => {
    const part = `bytes ${start}-${end - 1}/${CONTENT.length}`;
    return response(206, { 'Content-Encoding': 'gzip', 'Content-Range': part, ETag: tag }, body);
  };

  it('content that is stored with a content coding has parts like any other', async () => {
    await using server = await scriptedServer(({ headers }) => {
      const [start = 0, last = 0] = (headers.range ?? '').replace('bytes=', '').split('-').map(Number);
      return encodedPart('"a"', CONTENT.subarray(start, last + 1), { start, end: last + 1 });
    });
    await using origin = open();
    const stat = await origin.stat({ url: server.url, headers: {} });
    expect(stat).toMatchObject({ contentLength: CONTENT.length, acceptsRanges: true });
    expect(stat.headers['content-encoding']).toBe('gzip');
    expect((await fetched(origin, server.url, RANGE)).equals(CONTENT.subarray(RANGE.start, RANGE.end))).toBe(true);
  });

  it.each([
    ['without a strong tag', 'W/"a"', '0'],
    ['of another length', '"a"', 'encoded anew'],
  ])('an encoded part %s is none', async (_how, tag, body) => {
    await using server = await scriptedServer(() => encodedPart(tag, body, { start: 0, end: 1 }));
    await using origin = open();
    const stat = await origin.stat({ url: server.url, headers: {} });
    expect(stat).toMatchObject({ contentLength: undefined, acceptsRanges: false });
  });

  it('401 in the middle: an OriginError with the challenge', async () => {
    await using server = await scriptedServer((request) =>
      request.index === 0 ? serve(request) : response(401, { 'WWW-Authenticate': 'Bearer realm="x"' }),
    );
    await using origin = open();
    await origin.stat({ url: server.url, headers: {} });
    const error = await failure(fetched(origin, server.url, RANGE));
    expect(error).toBeInstanceOf(OriginError);
    expect(error).toMatchObject({ code: 'origin', status: 401, headers: { 'www-authenticate': 'Bearer realm="x"' } });
  });

  it('429 with Retry-After is waited for as told, and given up beyond the limit', async () => {
    await using server = await scriptedServer((request) =>
      request.index === 0 ? response(429, { 'Retry-After': '1' }) : serve(request),
    );
    await using origin = open();
    const start = performance.now();
    expect((await fetched(origin, server.url, RANGE)).equals(PART)).toBe(true);
    expect(performance.now() - start).toBeGreaterThan(990);
    await using busy = await scriptedServer(() => response(429, { 'Retry-After': '3600' }));
    expect(await failure(fetched(origin, busy.url))).toMatchObject({ status: 429, headers: { 'retry-after': '3600' } });
    expect(busy.requests).toHaveLength(1);
  });

  it('5xx is asked again a bounded number of times', async () => {
    await using server = await scriptedServer((request) => (request.index < 2 ? response(503, {}) : serve(request)));
    await using origin = open();
    expect((await fetched(origin, server.url, RANGE)).equals(PART)).toBe(true);
    await using broken = await scriptedServer(() => response(500, {}));
    expect(await failure(fetched(origin, broken.url))).toMatchObject({ status: 500 });
    expect(broken.requests).toHaveLength(3);
  });

  it('silent, or one byte at a time: deadline-exceeded', async () => {
    await using silent = await scriptedServer(() => undefined);
    await using trickling = await scriptedServer((_, socket) => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n');
      const timer = setInterval(() => socket.write('x'), 20);
      socket.on('close', () => clearInterval(timer));
      return undefined;
    });
    await using slowHead = await scriptedServer((_, socket) => {
      const timer = setInterval(() => socket.write('H'), 20);
      socket.on('close', () => clearInterval(timer));
      return undefined;
    });
    await using origin = open({ headTimeout: 300, silenceTimeout: 300 });
    for (const { url } of [silent, trickling, slowHead]) {
      expect((await failure(fetched(origin, url))).code).toBe('deadline-exceeded');
    }
  });
});

describe('redirects', () => {
  const secret = { authorization: 'Bearer secret', cookie: 'a=b', 'x-other': 'kept' };

  it('keeps credentials on the same host and strips them elsewhere', async () => {
    await using target = await scriptedServer((request) => serve(request));
    await using server = await scriptedServer((request) =>
      request.path === '/'
        ? response(302, { Location: '/second' })
        : response(307, { Location: `${target.url}/signed` }),
    );
    await using origin = open();
    await using body = await origin.fetch({ url: server.url, headers: secret, range: RANGE });
    expect((await contentOf(body)).equals(PART)).toBe(true);
    expect(server.requests[1]?.headers).toMatchObject(secret);
    expect(target.requests[0]?.headers).toMatchObject({ 'x-other': 'kept' });
    expect(target.requests[0]?.headers.authorization).toBeUndefined();
    expect(target.requests[0]?.headers.cookie).toBeUndefined();
  });

  it('uses the target of a 307 again until it expires, and only for the same credentials', async () => {
    let signature = 1;
    await using target = await scriptedServer((request) =>
      request.path === `/signed${signature}` ? serve(request) : response(403, {}),
    );
    await using server = await scriptedServer(() => response(307, { Location: `${target.url}/signed${signature}` }));
    await using origin = open();
    const get = async (headers: Record<string, string>) => {
      await using body = await origin.fetch({ url: server.url, headers, range: RANGE });
      expect((await contentOf(body)).equals(PART)).toBe(true);
    };
    await get(secret);
    await get(secret);
    expect(server.requests).toHaveLength(1);
    await get({ authorization: 'Bearer other' });
    expect(server.requests).toHaveLength(2);
    signature = 2;
    await get(secret);
    expect(server.requests).toHaveLength(3);
    await get(secret);
    expect(server.requests).toHaveLength(3);
  });

  it('ends a loop, a missing target and a bad one with an error', async () => {
    await using origin = open();
    await using loop = await scriptedServer(() => response(302, { Location: '/again' }));
    expect((await failure(fetched(origin, loop.url))).message).toMatch(/more than 10 times/);
    expect(loop.requests).toHaveLength(11);
    for (const location of ['ftp://host/x', 'http://user:pass@host/', 'http://']) {
      await using bad = await scriptedServer(() => response(302, { Location: location }));
      expect((await failure(fetched(origin, bad.url))).code).toBe('origin');
    }
    await using none = await scriptedServer(() => response(302, {}));
    expect(await failure(fetched(origin, none.url))).toMatchObject({ status: 302 });
  });

  it('checks the address of each target', async () => {
    await using server = await scriptedServer(() => response(302, { Location: 'http://169.254.169.254/latest/' }));
    await using origin = open();
    expect((await failure(fetched(origin, server.url))).code).toBe('permission-denied');
  });
});
