import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sha256Hex } from '@pantala/base';
import { Registry } from '@pantala/oci';
import { describe, expect, test } from 'vitest';
import { ask } from '../support/client.ts';
import { serveContent, startOrigin } from '../support/origin.ts';
import { startRig } from '../support/rig.ts';
import { waitFor } from '../support/wait.ts';

const content = randomBytes(3_000_000);
const digest = sha256Hex(content);
const blob = `/v2/library/app/blobs/sha256:${digest}`;
const blobHeaders = {
  'content-type': 'application/octet-stream',
  etag: '"e1"',
  'docker-content-digest': `sha256:${digest}`,
};

describe('a blob through the mirror', () => {
  test('comes whole, by the registry that the header names, and is a hit the second time', async () => {
    await using origin = await startOrigin(serveContent(content, blobHeaders));
    await using rig = await startRig({ serverIp: '10.1.2.3' });
    const headers = { 'X-Dragonfly-Registry': origin.url, authorization: 'Bearer t', 'accept-encoding': 'gzip' };
    const first = await ask(rig.port, blob, { headers });
    expect(first.status).toBe(200);
    expect(sha256Hex(first.body)).toBe(digest);
    expect(first.headers).toMatchObject({
      'x-dragonfly-task-id': digest,
      'x-dragonfly-server-ip': '10.1.2.3',
      'docker-content-digest': `sha256:${digest}`,
      'content-type': 'application/octet-stream',
      'content-length': String(content.length),
      'accept-ranges': 'bytes',
    });
    expect(first.headers).not.toHaveProperty('x-dragonfly-task-download-finished');
    const second = await ask(rig.port, blob, { headers });
    expect(second.body.equals(content)).toBe(true);
    expect(second.headers['x-dragonfly-task-download-finished']).toBe('true');
    expect(rig.downloader.requests[0]?.request).toMatchObject({
      url: `${origin.url}${blob}`,
      reader: 'local',
      prefetch: false,
    });
    expect(rig.downloader.requests[0]?.request.requestHeaders).toEqual({
      authorization: 'Bearer t',
      'accept-encoding': 'identity',
    });
    expect(origin.seen).toHaveLength(1);
  });

  test('the header goes before ns, ns before the fixed address; ns is not passed on', async () => {
    await using named = await startOrigin(serveContent(content));
    await using other = await startOrigin(serveContent(content));
    await using fixed = await startOrigin(serveContent(content));
    await using rig = await startRig({ mirror: { upstream: fixed.url } });
    await ask(rig.port, `/v2/?ns=${encodeURIComponent(other.url)}`, { headers: { 'X-Dragonfly-Registry': named.url } });
    await ask(rig.port, `/v2/?a=%2F&ns=${encodeURIComponent(other.url)}&b`);
    await ask(rig.port, '/v2/?a=1');
    expect(named.seen.map(({ url }) => url)).toEqual(['/v2/']);
    expect(other.seen.map(({ url }) => url)).toEqual(['/v2/?a=%2F&b']);
    expect(fixed.seen.map(({ url }) => url)).toEqual(['/v2/?a=1']);
    expect(fixed.seen[0]?.headers.host).toBe(`127.0.0.1:${fixed.port}`);
  });

  test('docker.io means the host of its registry', async () => {
    await using rig = await startRig();
    await ask(rig.port, `${blob}?ns=docker.io`).catch(() => {});
    expect(rig.downloader.requests[0]?.request.url).toBe(`https://registry-1.docker.io${blob}`);
  });

  test('the older generation without dynamic reads neither header nor ns', async () => {
    await using fixed = await startOrigin(serveContent(content));
    await using rig = await startRig({ mirror: { upstream: fixed.url, upstreamFrom: [] } });
    const answer = await ask(rig.port, '/v2/?ns=other.example', {
      headers: { 'X-Dragonfly-Registry': 'http://127.0.0.1:9' },
    });
    expect(answer.status).toBe(200);
    expect(fixed.seen).toHaveLength(1);
  });

  test.each([
    ['registry.example', 'lacks http:// or https://'],
    ['ftp://registry.example', 'known: http, https'],
  ])('a registry header %s is refused', async (registry, reason) => {
    await using rig = await startRig();
    const answer = await ask(rig.port, blob, { headers: { 'X-Dragonfly-Registry': registry } });
    expect(answer.status).toBe(400);
    expect(answer.headers['x-dragonfly-error-type']).toBe('proxy');
    expect(answer.body.toString()).toContain(reason);
  });

  test('an extra mirror listens by itself with its own upstream', async () => {
    await using first = await startOrigin(serveContent(content));
    await using second = await startOrigin(serveContent(content));
    await using rig = await startRig({
      mirror: { upstream: first.url },
      extraMirrors: [{ listen: { port: 0 }, mirror: { upstream: second.url, share: 'nothing' } }],
    });
    await ask(rig.proxy.extraAddresses[0]?.port ?? 0, blob);
    expect(first.seen).toHaveLength(0);
    expect(second.seen).toHaveLength(1);
    expect(rig.downloader.requests).toHaveLength(0);
  });
});

describe('what the client is told by the origin', () => {
  test('a 401 on a blob reaches it with the challenge', async () => {
    const challenge = 'Bearer realm="http://auth.example/token",service="r",scope="repository:library/app:pull"';
    await using origin = await startOrigin((_, res) => {
      res.writeHead(401, { 'www-authenticate': challenge, 'docker-distribution-api-version': 'registry/2.0' });
      res.end('{"errors":[]}');
    });
    await using rig = await startRig({ mirror: { upstream: origin.url } });
    for (const path of [blob, '/v2/library/app/manifests/latest', '/v2/']) {
      const answer = await ask(rig.port, path);
      expect(answer.status).toBe(401);
      expect(answer.headers['www-authenticate']).toBe(challenge);
      expect(answer.headers['docker-distribution-api-version']).toBe('registry/2.0');
      expect(answer.headers['x-dragonfly-error-type']).toBe('backend');
    }
  });

  test('a 429 keeps its Retry-After', async () => {
    await using origin = await startOrigin((_, res) => res.writeHead(429, { 'retry-after': '7' }).end());
    await using rig = await startRig({ mirror: { upstream: origin.url } });
    const answer = await ask(rig.port, blob);
    expect([answer.status, answer.headers['retry-after']]).toEqual([429, '7']);
  });

  test('manifests, tags and tokens never become tasks, whatever the rules say', async () => {
    await using origin = await startOrigin((req, res) => res.end(req.url));
    await using rig = await startRig({ mirror: { upstream: origin.url }, rules: [{ regex: '.*' }] });
    for (const path of [
      '/v2/',
      '/v2/a/b/manifests/latest',
      `/v2/a/manifests/sha256:${digest}`,
      '/v2/a/tags/list?n=2',
      '/token?service=registry&scope=repository:a:pull',
    ]) {
      const answer = await ask(rig.port, path, { headers: { 'X-Dragonfly-Use-P2P': 'true' } });
      expect(answer.body.toString()).toBe(path);
    }
    expect(rig.downloader.requests).toHaveLength(0);
  });

  test('an origin that is down is a 503 with the type backend, and no hanging connection', async () => {
    await using rig = await startRig({ mirror: { upstream: 'http://127.0.0.1:1' } });
    const answer = await ask(rig.port, '/v2/');
    expect(answer.status).toBe(503);
    expect(answer.headers['x-dragonfly-error-type']).toBe('backend');
  });
});

describe('a client of registries', () => {
  test('gets its token where the registry says, and the blob with it through the mirror', async () => {
    await using origin = await startOrigin((req, res) => {
      if (req.url?.startsWith('/token') === true) return void res.end('{"token":"good"}');
      if (req.headers.authorization === 'Bearer good') return serveContent(content, blobHeaders)(req, res);
      const realm = `http://${req.headers.host}/token`;
      res.writeHead(401, {
        'www-authenticate': `Bearer realm="${realm}",service="s",scope="repository:library/app:pull"`,
      });
      res.end();
    });
    await using rig = await startRig({ mirror: { upstream: origin.url } });
    const hash = createHash('sha256');
    const repository = new Registry(rig.url).repository('library/app');
    for await (const chunk of repository.blob({ digest: `sha256:${digest}`, size: content.length })) hash.update(chunk);
    expect(hash.digest('hex')).toBe(digest);
    expect(rig.downloader.requests.map(({ request }) => request.requestHeaders.authorization)).toEqual([
      undefined,
      'Bearer good',
    ]);
  });
});

describe('a file for the client', () => {
  test('is put below the directories that are allowed, and nowhere else', async () => {
    const allowed = mkdtempSync(join(tmpdir(), 'output-'));
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({ mirror: { upstream: origin.url }, outputDirectories: [allowed] });
    const askFor = (path: string, more: Record<string, string> = {}) =>
      ask(rig.port, blob, { headers: { 'X-Dragonfly-Output-Path': path, ...more } });
    symlinkSync('/etc', join(allowed, 'link'));
    for (const path of ['/etc/motd-of-pantala', `${allowed}/../escaped`, `${allowed}/link/escaped`, `${allowed}x/y`]) {
      expect((await askFor(path)).status).toBe(403);
      expect(existsSync(path)).toBe(false);
    }
    expect((await askFor('relative')).status).toBe(400);
    expect((await askFor(join(allowed, 'blob'))).status).toBe(200);
    await waitFor(() => existsSync(join(allowed, 'blob')));
    await waitFor(() => readFileSync(join(allowed, 'blob')).equals(content));
    rmSync(allowed, { recursive: true });
  });
});

describe('methods and headers', () => {
  test('HEAD and uploads pass through, with body and headers as they were', async () => {
    await using origin = await startOrigin((req, res, body) => {
      res.writeHead(req.method === 'PUT' ? 201 : 200, {
        'x-body': body,
        'content-length': req.method === 'HEAD' ? 3_000_000 : 0,
      });
      res.end();
    });
    await using rig = await startRig({ mirror: { upstream: origin.url } });
    const head = await ask(rig.port, blob, { method: 'HEAD' });
    expect(head.headers['content-length']).toBe('3000000');
    const put = await ask(rig.port, blob, {
      method: 'PUT',
      body: 'hello',
      headers: {
        'X-Custom-Name': 'kept',
        'X-Dragonfly-Tag': 't',
        'X-Dragonfly-Unknown': 'x',
        'Proxy-Authorization': 'Basic abc',
        Connection: 'x-hop',
        'X-Hop': 'dropped',
        Authorization: 'Bearer registry',
        'Accept-Encoding': 'gzip',
      },
    });
    expect([put.status, put.headers['x-body']]).toEqual([201, 'hello']);
    const [, seen] = origin.seen;
    expect(seen?.rawHeaders).toContain('X-Custom-Name');
    expect(seen?.headers).toMatchObject({
      authorization: 'Bearer registry',
      'accept-encoding': 'gzip',
      'x-custom-name': 'kept',
    });
    expect(Object.keys(seen?.headers ?? {}).filter((name) => /^x-dragonfly|proxy|x-hop/.test(name))).toEqual([]);
    expect(rig.downloader.requests).toHaveLength(0);
  });

  test('directives of both generations reach the download', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({ mirror: { upstream: origin.url }, disableBackToSource: true, prefetch: true });
    await ask(rig.port, '/other/file?x=1', {
      headers: {
        'X-Dragonfly-Use-P2P': 'TRUE',
        'X-Dragonfly-Tag': 't',
        'X-Dragonfly-Application': 'a',
        'X-Dragonfly-Priority': '3',
        'X-Dragonfly-Filtered-Query-Params': 'x, y',
        'X-Dragonfly-Piece-Length': '8MiB',
        'X-Dragonfly-Content-For-Calculating-Task-ID': 'c',
        Range: 'bytes=0-9',
        traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      },
    });
    await ask(rig.port, `${blob}`, {
      headers: { 'X-Dragonfly-Filter': 'p&q', Range: 'bytes=-5', 'X-Dragonfly-Prefetch': 'false' },
    });
    expect(rig.downloader.requests[0]).toMatchObject({
      range: { start: 0, end: 10 },
      request: {
        tag: 't',
        application: 'a',
        priority: 3,
        filteredQueryParams: ['x', 'y'],
        pieceLength: 8 * 1024 * 1024,
        contentForTaskId: 'c',
        prefetch: true,
        disableBackToSource: true,
        traceId: '0af7651916cd43dd8448eb211c80319c',
      },
    });
    expect(rig.downloader.requests[0]?.request.requestHeaders).not.toHaveProperty('range');
    expect(rig.downloader.requests[1]).toMatchObject({
      range: undefined,
      request: { filteredQueryParams: ['p', 'q'], prefetch: false },
    });
  });

  test('a piece length below 4 MiB is refused', async () => {
    await using rig = await startRig();
    const answer = await ask(rig.port, blob, { headers: { 'X-Dragonfly-Piece-Length': '1MiB' } });
    expect([answer.status, answer.headers['x-dragonfly-error-type']]).toEqual([400, 'proxy']);
  });
});

describe('the unix socket', () => {
  test('gives every blob through the swarm, without rules or password, to the owner alone', async () => {
    await using origin = await startOrigin(serveContent(content, blobHeaders));
    using folder = scratchFolder();
    const socketPath = join(folder.path, 'proxy.sock');
    const basicAuth = { username: 'someone', password: 'secret' };
    await using rig = await startRig({ socketPath, rules: [], basicAuth });
    expect((await ask(rig.port, blob, { headers: { 'X-Dragonfly-Registry': origin.url } })).status).toBe(407);
    expect(statSync(socketPath).mode & 0o777).toBe(0o600);
    const range = 'bytes=1000-65999';
    const answer = await askSocket(socketPath, blob, { 'X-Dragonfly-Registry': origin.url, range });
    expect(answer.status).toBe(206);
    expect(answer.body.equals(content.subarray(1000, 66_000))).toBe(true);
    expect(rig.downloader.requests[0]?.request.url).toBe(`${origin.url}${blob}`);
    await rig[Symbol.asyncDispose]();
    expect(existsSync(socketPath)).toBe(false);
  });

  test('takes the place of one that a killed process left, and not of one that answers', async () => {
    using folder = scratchFolder();
    const socketPath = join(folder.path, 'proxy.sock');
    await using first = await startRig({ socketPath });
    await expect(startRig({ socketPath })).rejects.toMatchObject({ code: 'already-exists' });
    await first[Symbol.asyncDispose]();
    const left = createServer().listen(`${socketPath}.left`);
    await once(left, 'listening');
    renameSync(`${socketPath}.left`, socketPath);
    left.close();
    await once(left, 'close');
    await using _ = await startRig({ socketPath });
    expect((await askSocket(socketPath, '/v2/', { 'X-Dragonfly-Registry': 'ftp://nowhere' })).status).toBe(400);
  });
});

function scratchFolder(): { readonly path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'pantala-proxy-socket-'));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

async function askSocket(socketPath: string, path: string, headers: Record<string, string>) {
  const [response] = (await once(request({ socketPath, path, headers }).end(), 'response')) as [IncomingMessage];
  const parts: Buffer[] = [];
  for await (const part of response) parts.push(part as Buffer);
  return { status: response.statusCode, body: Buffer.concat(parts) };
}
