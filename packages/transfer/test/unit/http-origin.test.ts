import { once } from 'node:events';
import { createServer } from 'node:http';
import { describe, expect, it } from 'vitest';
import type { OriginAccess } from '../../src/index.ts';
import { CONTENT, failure, fetched, open, PART, RANGE, serve } from '../support/http-content.ts';
import { contentOf, describeOrigin } from '../support/origin-conformance.ts';
import { response, type ScriptedRequest, scriptedServer } from '../support/scripted-server.ts';

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
