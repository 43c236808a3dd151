import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { noMetrics } from '@pantala/base';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createOrigin, type OriginTrust } from '../../src/index.ts';
import { contentOf, numbered } from '../support/origin-conformance.ts';

const CONTENT = numbered(5_000_000);
let directory: string;
let certificate: string;
let url: string;
let connections = 0;
const server = createServer();

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'pantala-tls-'));
  const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')];
  const subject = ['-subj', '/CN=origin', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  execFileSync('openssl', ['req', '-x509', ...kind, ...subject, '-keyout', key, '-out', cert], { stdio: 'ignore' });
  certificate = readFileSync(cert, 'utf8');
  server.setSecureContext({ key: readFileSync(key), cert: certificate });
  server.on('secureConnection', () => connections++);
  server.on('request', (_req, res) => res.writeHead(200, { 'content-length': CONTENT.length }).end(CONTENT));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  url = `https://localhost:${typeof address === 'object' ? address?.port : 0}/content`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  rmSync(directory, { recursive: true });
});

async function fetchWith(trust: OriginTrust[], times = 1): Promise<Buffer> {
  await using origin = createOrigin({ trust, attempts: 1 }, { metrics: noMetrics });
  let content: Buffer = Buffer.alloc(0);
  for (let i = 0; i < times; i++) {
    await using body = await origin.fetch({ url, headers: {} });
    content = await contentOf(body);
  }
  return content;
}

describe('origins over TLS', () => {
  it('refuses a certificate that nobody vouches for', async () => {
    await expect(fetchWith([])).rejects.toMatchObject({
      code: 'unavailable',
      message: /no TLS connection.*self-signed/,
    });
  });

  it('trusts further authorities', async () => {
    expect((await fetchWith([{ authorities: [certificate] }])).equals(CONTENT)).toBe(true);
  });

  it('skips the check only where that was told', async () => {
    expect((await fetchWith([{ hosts: '^localhost:\\d+$', insecure: true }])).equals(CONTENT)).toBe(true);
    await expect(fetchWith([{ hosts: '^registry', insecure: true }])).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('keeps the connection', async () => {
    const before = connections;
    expect((await fetchWith([{ insecure: true }], 3)).equals(CONTENT)).toBe(true);
    expect(connections - before).toBe(1);
  });
});
