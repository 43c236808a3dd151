import { once } from 'node:events';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { noMetrics, PantalaError } from '@pantala/base';
import { describe, expect, it } from 'vitest';
import { createOrigin, type OriginAccess, OriginError, type OriginOptions } from '../../src/index.ts';
import { contentOf, describeOrigin, numbered } from '../support/origin-conformance.ts';
import { response, type ScriptedRequest, scriptedServer } from '../support/scripted-server.ts';

const CONTENT = numbered(200_000);

function open(options: OriginOptions = {}): OriginAccess {
  return createOrigin(options, { metrics: noMetrics });
}

/** A well-behaved answer to a request for CONTENT. */
function serve(request: ScriptedRequest, content = CONTENT): Buffer {
  const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
  if (match === null) return response(200, {}, content);
  const [start, end] = [Number(match[1]), Number(match[2]) + 1];
  if (start >= content.length) return response(416, { 'Content-Range': `bytes */${content.length}` });
  const part = content.subarray(start, end);
  return response(206, { 'Content-Range': `bytes ${start}-${start + part.length - 1}/${content.length}` }, part);
}

const RANGE = { start: 100_000, end: 150_000 };
const PART = CONTENT.subarray(RANGE.start, RANGE.end);

async function fetched(origin: OriginAccess, url: string, range?: { start: number; end: number }): Promise<Buffer> {
  await using body = await origin.fetch({ url, headers: {}, ...(range === undefined ? {} : { range }) });
  return await contentOf(body);
}

async function failure(work: Promise<unknown>): Promise<PantalaError> {
  const result = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (result instanceof PantalaError) return result;
  throw new Error('it did not fail with a PantalaError', { cause: result });
}

describeOrigin('http with ranges', async () => {
  const objects = new Map<string, Buffer>();
  const server = createServer((req, res) => {
    const content = objects.get(req.url ?? '');
    if (content === undefined) return void res.writeHead(404).end();
    const match = /^bytes=(\d+)-(\d+)$/.exec(req.headers.range ?? '');
    if (match === null) return void res.writeHead(200, { 'content-length': content.length }).end(content);
    const [start, end] = [Number(match[1]), Math.min(Number(match[2]) + 1, content.length)];
    if (start >= content.length) return void res.writeHead(416, { 'content-range': `bytes */${content.length}` }).end();
    const headers = { 'content-range': `bytes ${start}-${end - 1}/${content.length}`, 'content-length': end - start };
    res.writeHead(206, headers).end(content.subarray(start, end));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const base = `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`;
  const origin = open();
  return {
    origin,
    missing: `${base}/missing`,
    put: async (name, content) => {
      objects.set(`/${name}`, content);
      return `${base}/${name}`;
    },
    async [Symbol.asyncDispose]() {
      await origin[Symbol.asyncDispose]();
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
});

describeOrigin('http without ranges', async () => {
  const objects = new Map<string, Buffer>();
  const server = await scriptedServer((request) => {
    const content = objects.get(request.path);
    return content === undefined ? response(404, {}) : response(200, {}, content);
  });
  const origin = open();
  return {
    origin,
    missing: `${server.url}/missing`,
    put: async (name, content) => {
      objects.set(`/${name}`, content);
      return `${server.url}/${name}`;
    },
    async [Symbol.asyncDispose]() {
      await origin[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
});

describe('connections', () => {
  it('carries many requests on one connection', async () => {
    await using server = await scriptedServer((request) => serve(request));
    await using origin = open();
    for (let i = 0; i < 30; i++) expect((await fetched(origin, server.url, RANGE)).equals(PART)).toBe(true);
    expect(server.connections).toBe(1);
  });

  it('asks again when a kept connection was closed under it', async () => {
    await using server = await scriptedServer((request, socket) => {
      if (request.index === 1) return void socket.destroy();
      return serve(request);
    });
    await using origin = open({ attempts: 1 });
    expect((await fetched(origin, server.url, RANGE)).equals(PART)).toBe(true);
    expect((await fetched(origin, server.url, RANGE)).equals(PART)).toBe(true);
    expect(server.connections).toBe(2);
  });

  it('has no more requests at once than allowed', async () => {
    let open_ = 0;
    let most = 0;
    await using server = await scriptedServer((request, socket) => {
      most = Math.max(most, ++open_);
      setTimeout(() => {
        open_--;
        socket.write(serve(request));
      }, 5);
      return undefined;
    });
    await using origin = open({ requestsPerHost: 3 });
    await Promise.all(Array.from({ length: 20 }, () => fetched(origin, server.url, RANGE)));
    expect(most).toBe(3);
  });

  it('keeps to the rate', async () => {
    await using server = await scriptedServer((request) => serve(request));
    await using origin = open({ rate: 400_000 });
    const start = performance.now();
    await fetched(origin, server.url);
    expect(performance.now() - start).toBeGreaterThan(390);
  });
});

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
    ['a content coding', response(200, { 'Content-Encoding': 'gzip' }, CONTENT)],
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

  it('a content coding is passed on with a whole read', async () => {
    await using server = await scriptedServer(() => response(200, { 'Content-Encoding': 'gzip' }, CONTENT));
    await using origin = open();
    expect((await origin.stat({ url: server.url, headers: {} })).acceptsRanges).toBe(false);
    await using body = await origin.fetch({ url: server.url, headers: {} });
    expect(body.headers['content-encoding']).toBe('gzip');
    expect((await fetched(origin, server.url, { start: 0, end: CONTENT.length })).equals(CONTENT)).toBe(true);
    expect((await contentOf(body)).equals(CONTENT)).toBe(true);
    expect(server.requests.at(-1)?.headers['accept-encoding']).toBe('identity');
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

describe('what a resource is and its first bytes in one request', () => {
  const begun = async (origin: OriginAccess, url: string, range?: { start: number; end: number }) => {
    const { stat, body } = await origin.begin({ url, headers: {}, ...(range === undefined ? {} : { range }) });
    return { stat, range: body?.range, bytes: body && (await contentOf(body)) };
  };
  // Everything from an offset on, besides what `serve` knows.
  const serveOpen = (request: ScriptedRequest, content = CONTENT): Buffer => {
    const start = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1];
    if (start === undefined) return serve(request, content);
    return serve({ ...request, headers: { range: `bytes=${start}-${content.length - 1}` } }, content);
  };

  it('a part, all of it, and a part beyond the end', async () => {
    await using server = await scriptedServer((request) => serveOpen(request));
    await using origin = open();
    expect(await begun(origin, server.url, RANGE)).toMatchObject({ range: RANGE, bytes: PART });
    const all = await begun(origin, server.url);
    expect(all.stat).toMatchObject({ contentLength: CONTENT.length, acceptsRanges: true });
    expect(all.stat.headers).not.toHaveProperty('content-range');
    expect(all.bytes?.equals(CONTENT)).toBe(true);
    const late = await begun(origin, server.url, { start: 199_000, end: 210_000 });
    expect(late.range).toEqual({ start: 199_000, end: 200_000 });
    expect(late.bytes?.equals(CONTENT.subarray(199_000))).toBe(true);
    expect(server.requests).toHaveLength(3);
  });

  it('an origin that ignores ranges', async () => {
    await using server = await scriptedServer(() => response(200, {}, CONTENT));
    await using origin = open();
    const all = await begun(origin, server.url);
    expect(all.stat).toMatchObject({ contentLength: CONTENT.length, acceptsRanges: false });
    expect(all.bytes?.equals(CONTENT)).toBe(true);
    expect(server.requests).toHaveLength(1);
  });

  it('what is odd brings no bytes, and the same facts as asking for them alone', async () => {
    const answers: Record<string, (request: ScriptedRequest) => Buffer> = {
      nothing: () => response(416, { 'Content-Range': 'bytes */0' }),
      after: (request) => serveOpen(request),
      elsewhere: (request) =>
        request.headers.range === 'bytes=0-0'
          ? serve(request)
          : response(206, { 'Content-Range': 'bytes 5-6/200000' }, CONTENT.subarray(5, 7)),
      endless: () => Buffer.from('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n'),
    };
    for (const [name, answer] of Object.entries(answers)) {
      await using server = await scriptedServer(answer);
      await using origin = open();
      const found = await begun(origin, server.url, name === 'after' ? { start: 300_000, end: 300_001 } : undefined);
      expect(found.bytes, name).toBeUndefined();
      expect(found.stat, name).toEqual(await origin.stat({ url: server.url, headers: {} }));
    }
    await using server = await scriptedServer(() => response(404, {}));
    await using origin = open();
    expect(await failure(begun(origin, server.url))).toMatchObject({ code: 'origin', details: { status: 404 } });
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

describe('what is asked for', () => {
  it('refuses other schemes, user names, control characters', async () => {
    await using origin = open();
    const stat = (url: string, headers = {}) => failure(origin.stat({ url, headers }));
    expect((await stat('s3://bucket/key')).message).toMatch(/"s3:".*http, https/);
    expect((await stat('http://user@host/')).code).toBe('invalid-argument');
    expect((await stat('http://host/a\r\nb')).code).toBe('invalid-argument');
    expect((await stat('nonsense')).code).toBe('invalid-argument');
    expect((await stat('http://127.0.0.1:1/', { 'x-a': 'b\r\nx: y' })).code).toBe('invalid-argument');
    expect((await stat('http://127.0.0.1:1/', { 'x a': 'b' })).code).toBe('invalid-argument');
  });

  it('sends the caller’s headers but for those of the connection', async () => {
    await using server = await scriptedServer((request) => serve(request));
    await using origin = open({ requestHeaders: { 'x-default': '1', 'x-mine': 'no' } });
    const headers = { 'x-mine': 'yes', connection: 'close', range: 'bytes=5-6', 'accept-encoding': 'gzip', te: 'x' };
    await origin.stat({ url: server.url, headers });
    const got = server.requests[0]?.headers;
    expect(got).toMatchObject({ 'x-mine': 'yes', 'x-default': '1', range: 'bytes=0-0', 'accept-encoding': 'identity' });
    expect(got?.connection).toBeUndefined();
    expect(got?.te).toBeUndefined();
  });
});

describe('requests that pass through', () => {
  it('sends method, body and headers, and gives back status, headers and body as they are', async () => {
    await using server = await scriptedServer((request) => response(302, { Location: '/x', 'X-A': 'b' }, request.body));
    await using origin = open();
    async function* body() {
      yield Buffer.from('hello ');
      yield Buffer.from('world');
    }
    const answer = await origin.direct.request({
      method: 'PUT',
      url: new URL(`${server.url}/upload?x=1`),
      headers: ['X-Case', 'Kept', 'Content-Length', '11', 'Connection', 'keep-alive'],
      body: body(),
      signal: new AbortController().signal,
    });
    expect(answer.status).toBe(302);
    expect(answer.headers).toContain('X-A');
    expect(Buffer.concat(await answer.body.toArray()).toString()).toBe('hello world');
    expect(server.requests[0]).toMatchObject({ method: 'PUT', path: '/upload?x=1', headers: { 'x-case': 'Kept' } });
  });

  it('HEAD has no body', async () => {
    await using server = await scriptedServer(() => response(200, { 'Content-Length': 77 }));
    await using origin = open();
    const { signal } = new AbortController();
    for (let i = 0; i < 2; i++) {
      const answer = await origin.direct.request({ method: 'HEAD', url: new URL(server.url), headers: [], signal });
      expect(await answer.body.toArray()).toHaveLength(0);
    }
    expect(server.connections).toBe(1);
  });

  it('lets go of answers that nobody reads', async () => {
    await using server = await scriptedServer(() => response(200, {}, CONTENT));
    await using origin = open({ requestsPerHost: 1 });
    const { signal } = new AbortController();
    for (let i = 0; i < 3; i++) {
      const answer = await origin.direct.request({ method: 'GET', url: new URL(server.url), headers: [], signal });
      answer.body.destroy();
    }
    expect((await fetched(origin, server.url)).equals(CONTENT)).toBe(true);
  });

  it('gives the refusal of an upload that is not read to its end, and leaves the body alone', async () => {
    await using server = await scriptedServer((_, socket) => void socket.end(response(413, { Connection: 'close' })));
    await using origin = open();
    const release = Promise.withResolvers<void>();
    const body = Readable.from(
      (async function* () {
        yield Buffer.alloc(10);
        await release.promise;
        yield Buffer.alloc(10);
      })(),
    );
    const { signal } = new AbortController();
    const url = new URL(server.url);
    const answer = await origin.direct.request({ method: 'PUT', url, headers: [], body, signal });
    expect(answer.status).toBe(413);
    expect(body.destroyed).toBe(false);
    release.resolve();
  });

  it('tunnels only to allowed addresses', async () => {
    await using server = await scriptedServer(() => response(200, {}));
    await using origin = open({ addresses: { ownListeners: () => [{ host: '0.0.0.0', port: server.port }] } });
    const { signal } = new AbortController();
    const error = await failure(origin.direct.connect({ host: 'localhost', port: server.port, signal }));
    expect(error.code).toBe('permission-denied');
  });
});
