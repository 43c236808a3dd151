import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:net';
import { NodeTransport, Registry, type RegistryOptions } from '@pantala/oci';
import { describe, expect, test } from 'vitest';
import { startServer } from '../support/server.ts';

const data = randomBytes(300_000);
const blob = { digest: `sha256:${createHash('sha256').update(data).digest('hex')}`, size: data.length };
const quick: RegistryOptions = { initialPause: 1 };

async function read(url: string, options: RegistryOptions = quick, of = blob): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of new Registry(url, options).repository('a').blob(of)) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

function firstByte(req: IncomingMessage): number {
  return Number(/bytes=(\d+)-/.exec(req.headers.range ?? '')?.[1] ?? 0);
}

function sendFrom(req: IncomingMessage, res: ServerResponse, upTo = data.length) {
  const first = firstByte(req);
  const headers = first === 0 ? {} : { 'content-range': `bytes ${first}-${data.length - 1}/${data.length}` };
  res.writeHead(first === 0 ? 200 : 206, { ...headers, 'content-length': data.length - first });
  if (upTo === data.length) res.end(data.subarray(first));
  else res.write(data.subarray(first, upTo), () => res.destroy());
}

describe('downloads', () => {
  test('follow a redirect to object storage without the token', async () => {
    await using storage = await startServer((req, res) => sendFrom(req, res));
    await using registry = await startServer((req, res) => {
      if (req.headers.authorization === undefined) res.writeHead(401, { 'www-authenticate': 'Basic realm="r"' }).end();
      else res.writeHead(307, { location: `${storage.url}/object?signature=x` }).end();
    });
    const credentials = async () => ({ kind: 'password' as const, username: 'u', password: 'p' });
    expect((await read(registry.url, { ...quick, credentials })).equals(data)).toBe(true);
    expect(storage.seen[0]?.headers.authorization).toBeUndefined();
    expect(storage.seen[0]?.url).toBe('/object?signature=x');
  });

  test('go on where the connection broke', async () => {
    let breaks = 3;
    await using registry = await startServer((req, res) => {
      breaks--;
      sendFrom(req, res, breaks < 0 ? data.length : Math.min(data.length, firstByte(req) + 70_000));
    });
    expect((await read(registry.url)).equals(data)).toBe(true);
    const ranges = registry.seen.map(({ headers }) => headers.range);
    expect(ranges[0]).toBeUndefined();
    expect(ranges.slice(1).every((range) => /^bytes=\d+-299999$/.test(range ?? ''))).toBe(true);
  });

  test('skip what was read already where a registry ignores ranges', async () => {
    let first = true;
    await using registry = await startServer((_, res) => {
      res.writeHead(200, { 'content-length': data.length });
      if (first) res.write(data.subarray(0, 100_000), () => res.destroy());
      else res.end(data);
      first = false;
    });
    expect((await read(registry.url)).equals(data)).toBe(true);
  });

  test('give up when nothing comes any more', async () => {
    await using registry = await startServer((_, res) => void res.destroy());
    await expect(read(registry.url, { ...quick, attempts: 1 })).rejects.toMatchObject({ code: 'unavailable' });
    expect(registry.seen).toHaveLength(5);
  });

  test('notice other bytes, too many and too few', async () => {
    await using wrong = await startServer((_, res) => res.end(randomBytes(data.length)));
    await expect(read(wrong.url)).rejects.toMatchObject({
      code: 'data-loss',
      message: expect.stringContaining('digest'),
    });
    await using longer = await startServer((_, res) => res.end(Buffer.concat([data, data])));
    await expect(read(longer.url)).rejects.toMatchObject({ code: 'data-loss' });
    await using shorter = await startServer((_, res) => res.end(data.subarray(0, 10)));
    await expect(read(shorter.url)).rejects.toMatchObject({ code: 'unavailable' });
  });

  test('do not follow redirects without end, or to what is no http', async () => {
    await using loop = await startServer((_, res) => res.writeHead(302, { location: '/again' }).end());
    await expect(read(loop.url)).rejects.toMatchObject({
      code: 'origin',
      message: expect.stringContaining('10 times'),
    });
    await using file = await startServer((_, res) => res.writeHead(302, { location: 'file:///etc/passwd' }).end());
    await expect(read(file.url)).rejects.toMatchObject({ code: 'origin' });
  });
});

describe('tags', () => {
  test('come page by page, as long as pages are named on the same host', async () => {
    await using registry = await startServer((req, res) => {
      const page = Number(new URL(req.url ?? '', 'http://x').searchParams.get('last') ?? 0);
      const next = page === 2 ? 'http://elsewhere.example/v2/a/tags/list' : `/v2/a/tags/list?n=2&last=${page + 1}`;
      res.writeHead(200, { link: `<${next}>; rel="next"` });
      res.end(JSON.stringify({ name: 'a', tags: [`t${page}a`, `t${page}b`, 'not a tag', 7] }));
    });
    const tags: string[] = [];
    for await (const tag of new Registry(registry.url).repository('a').tags({ pageLength: 2 })) tags.push(tag);
    expect(tags).toEqual(['t0a', 't0b', 't1a', 't1b', 't2a', 't2b']);
    expect(registry.seen[0]?.url).toBe('/v2/a/tags/list?n=2');
  });
});

describe('referrers', () => {
  test('by the API, filtered here where the registry does not', async () => {
    const entry = { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: blob.digest, size: 1 };
    await using registry = await startServer((_, res) => {
      const manifests = [
        { ...entry, artifactType: 'a' },
        { ...entry, artifactType: 'b' },
      ];
      res.end(JSON.stringify({ schemaVersion: 2, manifests }));
    });
    const repository = new Registry(registry.url).repository('a');
    expect(await repository.referrers(blob.digest)).toHaveLength(2);
    expect(await repository.referrers(blob.digest, { artifactType: 'b' })).toMatchObject([{ artifactType: 'b' }]);
    expect(registry.seen[1]?.url).toBe(`/v2/a/referrers/${blob.digest}?artifactType=b`);
  });
});

describe('kept connections', () => {
  test('that the server closed meanwhile cost nothing, not even for what is sent once', async () => {
    const answers = [
      'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
      'HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n',
    ];
    let connections = 0;
    const server = createServer((socket) => {
      connections++;
      let first = true;
      socket.on('error', () => {});
      socket.on('data', () => {
        if (first) socket.write(answers.shift() ?? '');
        else socket.resetAndDestroy();
        first = false;
      });
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    using transport = new NodeTransport();
    const ask = async (method: string) => {
      const response = await transport.request({
        method,
        url: new URL(`http://127.0.0.1:${port}/`),
        headers: {},
        body: () => [],
      });
      for await (const _ of response.body);
      return response.status;
    };
    expect(await ask('GET')).toBe(200);
    expect(await ask('POST')).toBe(202);
    expect(connections).toBe(2);
    server.close();
  });
});

describe('refusals', () => {
  test.each([
    [403, 'permission-denied', 'these credentials may not'],
    [404, 'not-found', 'check the name'],
    [400, 'invalid-argument', 'BAD: because'],
    [503, 'unavailable', '503'],
  ])('%i is %s and says why', async (status, code, message) => {
    await using registry = await startServer((_, res) => {
      res.writeHead(status).end(JSON.stringify({ errors: [{ code: 'BAD', message: 'because' }] }));
    });
    await expect(read(registry.url)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message),
      details: { status },
    });
    expect(registry.seen).toHaveLength(status === 503 ? 4 : 1);
  });

  test('a passing 5xx is asked again', async () => {
    let failures = 2;
    await using registry = await startServer((req, res) =>
      failures-- > 0 ? void res.writeHead(502).end() : sendFrom(req, res),
    );
    expect((await read(registry.url)).equals(data)).toBe(true);
  });

  test('a 429 waits as long as it is told', async () => {
    let asked = 0;
    let told = 0;
    await using registry = await startServer((req, res) => {
      asked++;
      if (asked > 1) return sendFrom(req, res);
      told = Date.now();
      res.writeHead(429, { 'retry-after': '1' }).end();
    });
    expect((await read(registry.url)).equals(data)).toBe(true);
    expect(Date.now() - told).toBeGreaterThanOrEqual(990);
  });

  test('a 429 that wants more than the limit is an error at once, with what it wants', async () => {
    await using registry = await startServer((_, res) => res.writeHead(429, { 'retry-after': '3600' }).end());
    await expect(read(registry.url)).rejects.toMatchObject({
      code: 'resource-exhausted',
      details: { status: 429, retryAfter: '3600' },
    });
    expect(registry.seen).toHaveLength(1);
  });
});

describe('challenges', () => {
  test('a token server that is no URL gets no credentials', async () => {
    await using registry = await startServer((_, res) => {
      res.writeHead(401, { 'www-authenticate': 'Bearer realm="javascript:1",service="s"' }).end();
    });
    await expect(read(registry.url)).rejects.toMatchObject({
      code: 'unauthenticated',
      message: expect.stringContaining('no URL'),
    });
  });

  test('a registry that never has enough is not asked for ever', async () => {
    await using registry = await startServer((req, res) => {
      if (req.url?.startsWith('/token') === true) res.end(JSON.stringify({ token: `t${registry.seen.length}` }));
      else
        res
          .writeHead(401, { 'www-authenticate': `Bearer realm="${registry.url}/token",service="a, \\"b\\"",scope="x"` })
          .end();
    });
    await expect(read(registry.url)).rejects.toMatchObject({ code: 'unauthenticated' });
    expect(registry.seen.length).toBeLessThan(10);
    expect(new URL(registry.seen[1]?.url ?? '', registry.url).searchParams.get('service')).toBe('a, "b"');
  });
});
