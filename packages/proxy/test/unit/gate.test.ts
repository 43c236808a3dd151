import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { selfSigned } from '../support/certificates.ts';
import { ask } from '../support/client.ts';
import { serveContent, startOrigin } from '../support/origin.ts';
import { startRig } from '../support/rig.ts';
import { waitFor } from '../support/wait.ts';

const content = randomBytes(100_000);
const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;

describe('basic authentication', () => {
  test("is asked for in the proxy's own header and never mixed up with the registry's", async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({
      basicAuth: { username: 'u', password: 'p:w' },
      mirror: { upstream: origin.url },
    });
    for (const headers of [{}, { Authorization: basic('u:p:w') }, { 'Proxy-Authorization': basic('u:p') }]) {
      const answer = await ask(rig.port, '/v2/', { headers });
      expect(answer.status).toBe(407);
      expect(answer.headers['proxy-authenticate']).toMatch(/^Basic realm=/);
    }
    const headers = { 'Proxy-Authorization': basic('u:p:w'), Authorization: 'Bearer registry' };
    expect((await ask(rig.port, '/v2/', { headers })).status).toBe(200);
    expect((await ask(rig.port, '/files/a', { headers })).status).toBe(200);
    expect(origin.seen.map((request) => request.headers.authorization)).toEqual(['Bearer registry', 'Bearer registry']);
    expect(origin.seen.every((request) => !('proxy-authorization' in request.headers))).toBe(true);
    const socket = connect(rig.port, '127.0.0.1');
    socket.write(`CONNECT 127.0.0.1:${origin.port} HTTP/1.1\r\n\r\n`);
    const [head] = await once(socket, 'data');
    expect(String(head)).toMatch(/^HTTP\/1\.1 407 .*Proxy-Authenticate: Basic/s);
  });
});

describe('limits', () => {
  test('more requests at once than allowed are answered 429', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({ maxConcurrency: 1, mirror: { upstream: origin.url } });
    const { promise: release, resolve: goOn } = Promise.withResolvers<void>();
    rig.downloader.hooks.beforeExtent = () => release;
    const first = ask(rig.port, '/files/a');
    await waitFor(() => rig.downloader.opened === 1);
    const second = await ask(rig.port, '/files/a');
    expect([second.status, second.headers['x-dragonfly-error-type'], second.headers['retry-after']]).toEqual([
      429,
      'proxy',
      '1',
    ]);
    goOn();
    expect((await first).status).toBe(200);
    await waitFor(async () => (await ask(rig.port, '/files/a')).status === 200);
  });

  test('more requests a second than allowed are answered 429', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({ requestRateLimit: 2, mirror: { upstream: origin.url } });
    const answers = await Promise.all(Array.from({ length: 8 }, () => ask(rig.port, '/v2/')));
    const statuses = answers.map(({ status }) => status);
    expect(statuses).toContain(429);
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(2);
  });

  test('a header that does not come, is too long or is none ends the connection with its reason', async () => {
    await using rig = await startRig({ headerTimeout: 200 });
    const say = async (text: string) => {
      const socket = connect(rig.port, '127.0.0.1');
      socket.write(text);
      let answer = '';
      for await (const chunk of socket) answer += String(chunk);
      return answer.split('\r\n')[0];
    };
    expect(await say('GET / HTTP/1.1\r\nHost: x\r\n')).toBe('HTTP/1.1 408 Request Timeout');
    expect(await say(`GET / HTTP/1.1\r\nA: ${'a'.repeat(70_000)}`)).toBe(
      'HTTP/1.1 431 Request Header Fields Too Large',
    );
    expect(await say('nonsense\r\n\r\n')).toBe('HTTP/1.1 400 Bad Request');
  });
});

describe('the white list', () => {
  test('lets only its hosts and ports through, in all three modes', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using other = await startOrigin(serveContent(content));
    await using rig = await startRig({
      mirror: { upstream: other.url },
      whiteList: [{ regex: '^127\\.', ports: [origin.port] }, { host: 'registry.example' }],
    });
    expect((await ask(rig.port, `${origin.url}/a`)).status).toBe(200);
    expect((await ask(rig.port, `${other.url}/a`)).status).toBe(403);
    expect((await ask(rig.port, '/v2/')).status).toBe(403);
    const socket = connect(rig.port, '127.0.0.1');
    socket.write(`CONNECT 127.0.0.1:${other.port} HTTP/1.1\r\n\r\n`);
    expect(String((await once(socket, 'data'))[0])).toMatch(/^HTTP\/1\.1 403 /);
    expect(other.seen).toHaveLength(0);
  });
});

describe('start and end', () => {
  test('a restart under traffic listens again on the same port at once', async () => {
    await using origin = await startOrigin(serveContent(content));
    const first = await startRig({ mirror: { upstream: origin.url } });
    const { port } = first;
    const { promise: never } = Promise.withResolvers<void>();
    first.downloader.hooks.beforeExtent = () => never;
    const broken = ask(port, '/files/a').then(
      () => 'answered',
      () => 'broken off',
    );
    await waitFor(() => first.downloader.opened === 1);
    await first[Symbol.asyncDispose]();
    expect(await broken).toBe('broken off');
    await using second = await startRig({ mirror: { upstream: origin.url }, listen: { port } });
    expect(second.port).toBe(port);
    expect((await ask(port, '/files/a')).status).toBe(200);
  });

  test('requests under way are finished within the grace', async () => {
    await using origin = await startOrigin(serveContent(content));
    const rig = await startRig({ mirror: { upstream: origin.url }, shutdownGrace: 30_000 });
    const { promise: release, resolve: goOn } = Promise.withResolvers<void>();
    rig.downloader.hooks.beforeExtent = () => release;
    const answer = ask(rig.port, '/files/a');
    await waitFor(() => rig.downloader.opened === 1);
    const closed = rig[Symbol.asyncDispose]();
    goOn();
    expect((await answer).body.equals(content)).toBe(true);
    await closed;
  });

  test('a listener with a certificate speaks TLS, large bodies included', async () => {
    const large = randomBytes(3_000_000);
    await using origin = await startOrigin(serveContent(large));
    const tls = await selfSigned('localhost');
    await using rig = await startRig({ mirror: { upstream: origin.url }, listen: { port: 0, tls } });
    expect(rig.proxy.address.tls).toBe(true);
    const directory = mkdtempSync(join(tmpdir(), 'proxy-tls-'));
    const ca = join(directory, 'ca.crt');
    writeFileSync(ca, tls.cert);
    const args = ['-sS', '--fail', '--cacert', ca, '--resolve', `localhost:${rig.port}:127.0.0.1`];
    const { stdout } = await promisify(execFile)('curl', [...args, `https://localhost:${rig.port}/files/a`], {
      encoding: 'buffer',
      maxBuffer: 10_000_000,
    });
    expect(stdout.equals(large)).toBe(true);
    rmSync(directory, { recursive: true });
  });

  test('the first free port of a range is taken, a taken port is an error', async () => {
    await using first = await startRig();
    const { port } = first;
    await expect(startRig({ listen: { port } })).rejects.toMatchObject({ code: 'unavailable' });
    await using second = await startRig({ listen: { port: { start: port, end: port + 20 } } });
    expect(second.port).toBeGreaterThan(port);
  });
});
