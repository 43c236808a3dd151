import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { connect as connectPlain, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { promisify } from 'node:util';
import { afterAll, describe, expect, test } from 'vitest';
import { CertificateAuthority } from '../../src/authority.ts';
import { selfSigned } from '../support/certificates.ts';
import { ask } from '../support/client.ts';
import { serveContent, startOrigin } from '../support/origin.ts';
import { startRig } from '../support/rig.ts';

const content = randomBytes(900_000);
const stateDir = mkdtempSync(join(tmpdir(), 'authority-'));
afterAll(() => rmSync(stateDir, { recursive: true }));

async function tunnel(port: number, target: string): Promise<Socket> {
  const socket = connectPlain(port, '127.0.0.1');
  socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`);
  const [head] = await once(socket, 'data');
  if (!String(head).startsWith('HTTP/1.1 200 ')) throw new Error(String(head));
  return socket;
}

describe('a host that is to be intercepted', () => {
  test('is served over TLS from tasks, with a certificate by the kept authority', async () => {
    const tls = await selfSigned('127.0.0.1');
    await using origin = await startOrigin(serveContent(content), tls);
    await using rig = await startRig({ intercept: { hosts: ['^127\\.'] }, stateDir }, { ca: tls.cert });
    rig.downloader.hooks.beforeOpen = (request) => expect(request.url).toBe(`${origin.url}/files/a`);
    const ca = rig.proxy.authorityCertificate ?? '';
    const inner = connectTls({
      socket: await tunnel(rig.port, `127.0.0.1:${origin.port}`),
      ca,
      host: '127.0.0.1',
      servername: '',
    });
    await once(inner, 'secureConnect');
    expect(inner.authorized).toBe(true);
    expect(inner.getPeerCertificate().subjectaltname).toBe('IP Address:127.0.0.1');
    // Passing through needs the origin's own TLS; the task's fetching is not the proxy's business.
    const answer = await ask(rig.port, '/plain', { socket: inner });
    expect(answer.body.equals(content)).toBe(true);
    expect(readFileSync(join(stateDir, 'ca.crt'), 'utf8')).toBe(ca);
    expect(statSync(join(stateDir, 'ca.key')).mode & 0o777).toBe(0o600);
    expect((await CertificateAuthority.keptIn(stateDir)).certificate).toBe(ca);
  });

  test('gets ranges and large bodies of tasks over TLS', async () => {
    await using origin = await startOrigin(serveContent(content));
    // The tunnel is https; the replacement leads to the plain origin that stands for it.
    await using rig = await startRig({
      intercept: { hosts: ['example$'] },
      stateDir,
      rules: [{ regex: '^https://registry.example/files/', redirect: `http://127.0.0.1:${origin.port}/files/` }],
    });
    const inner = connectTls({
      socket: await tunnel(rig.port, 'registry.example:443'),
      ca: rig.proxy.authorityCertificate ?? '',
      servername: 'registry.example',
    });
    await once(inner, 'secureConnect');
    expect(inner.alpnProtocol).toBe(false);
    const whole = await ask(rig.port, '/files/a', { socket: inner });
    expect(whole.body.equals(content)).toBe(true);
  });

  test('curl believes the certificates', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({
      intercept: { hosts: ['example$'] },
      stateDir,
      rules: [{ regex: '^https://registry.example', redirect: `${origin.url}/` }],
    });
    const ca = join(stateDir, 'ca.crt');
    const args = ['-sS', '--fail', '-x', rig.url, '--cacert', ca, '-r', '100-999', 'https://registry.example/files/a'];
    const { stdout } = await promisify(execFile)('curl', args, { encoding: 'buffer' });
    expect(stdout.equals(content.subarray(100, 1000))).toBe(true);
    expect(rig.downloader.requests).toHaveLength(1);
  });

  test('a name in the handshake other than that of CONNECT is certified as well', async () => {
    await using rig = await startRig({ intercept: { hosts: ['.'] }, stateDir });
    const inner = connectTls({
      socket: await tunnel(rig.port, '127.0.0.1:443'),
      ca: rig.proxy.authorityCertificate ?? '',
      servername: 'named.example',
    });
    await once(inner, 'secureConnect');
    expect(inner.authorized).toBe(true);
    inner.destroy();
  });

  test('a given authority signs, be its key RSA or EC', async () => {
    for (const type of ['rsa', 'ec'] as const) {
      const authority = await selfSigned('authority', { type, authority: true });
      await using rig = await startRig({ intercept: { hosts: ['.'], authority } });
      const inner = connectTls({
        socket: await tunnel(rig.port, 'a.example:443'),
        ca: authority.cert,
        servername: 'a.example',
      });
      await once(inner, 'secureConnect');
      expect(inner.authorized).toBe(true);
      inner.destroy();
    }
    const mixed = { cert: (await selfSigned('a')).cert, key: (await selfSigned('b')).key };
    await expect(CertificateAuthority.of(mixed)).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  test('leaves are made once for each host, also when asked for at the same time', async () => {
    const authority = await CertificateAuthority.keptIn(stateDir);
    const [first, second] = await Promise.all([
      authority.contextFor(['h.example']),
      authority.contextFor(['h.example']),
    ]);
    expect(first).toBe(second);
    expect(await authority.contextFor(['h.example'])).toBe(first);
  });
});

describe('any other host', () => {
  test('is joined blindly: bytes both ways, half-closed ends, nothing looked at', async () => {
    const echo = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket));
    echo.listen(0, '127.0.0.1');
    await once(echo, 'listening');
    const { port } = echo.address() as { port: number };
    await using rig = await startRig({ intercept: { hosts: ['example$'] }, stateDir });
    const socket = await tunnel(rig.port, `127.0.0.1:${port}`);
    socket.end(content);
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).equals(content)).toBe(true);
    echo.close();
  });

  test('gets what the client sent without waiting for the answer', async () => {
    const echo = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
    await once(echo, 'listening');
    const { port } = echo.address() as { port: number };
    await using rig = await startRig();
    const socket = connectPlain(rig.port, '127.0.0.1');
    socket.end(`CONNECT 127.0.0.1:${port} HTTP/1.1\r\n\r\nearly bytes`);
    let answer = '';
    for await (const chunk of socket) answer += String(chunk);
    expect(answer).toBe('HTTP/1.1 200 Connection Established\r\n\r\nearly bytes');
    echo.close();
  });

  test('loses its tunnels when the proxy stops', async () => {
    const silent = createServer(() => {}).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const { port } = silent.address() as { port: number };
    const rig = await startRig({ shutdownGrace: 60_000 });
    const socket = await tunnel(rig.port, `127.0.0.1:${port}`);
    const closed = once(socket, 'close');
    socket.on('error', () => {});
    await rig[Symbol.asyncDispose]();
    await closed;
    silent.close();
  });

  test('sees its own TLS end to end', async () => {
    const tls = await selfSigned('localhost');
    await using origin = await startOrigin(serveContent(content), tls);
    await using rig = await startRig();
    const inner = connectTls({
      socket: await tunnel(rig.port, `localhost:${origin.port}`),
      ca: tls.cert,
      servername: 'localhost',
    });
    await once(inner, 'secureConnect');
    expect(inner.getPeerCertificate().subject.CN).toBe('localhost');
    expect((await ask(rig.port, '/files/a', { socket: inner })).body.equals(content)).toBe(true);
    expect(rig.downloader.requests).toHaveLength(0);
  });

  test.each([
    ['127.0.0.1:1', /^HTTP\/1\.1 502 /],
    ['no host at all', /^HTTP\/1\.1 400 /],
    ['host:99999', /^HTTP\/1\.1 400 /],
  ])("that can't be reached (%s) is an error", async (target, expected) => {
    await using rig = await startRig();
    await expect(tunnel(rig.port, target)).rejects.toThrow(expected);
  });
});
