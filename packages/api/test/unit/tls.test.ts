import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createClient, createServer, pantalaV1, type RpcTls, serve } from '../../src/index.ts';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'pantala-tls-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

const openssl = (...args: string[]) => void execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' });

/** An authority with one certificate. */
function identity(name: string, subjects = 'DNS:localhost,IP:127.0.0.1'): RpcTls {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  openssl('req', '-x509', ...key, '-subj', `/CN=${name}`, '-keyout', `${name}.ca.key`, '-out', `${name}.ca`);
  openssl('req', ...key, '-subj', '/CN=localhost', '-keyout', `${name}.key`, '-out', `${name}.csr`);
  writeFileSync(join(directory, 'san'), `subjectAltName=${subjects}`);
  const signed = ['-in', `${name}.csr`, '-CA', `${name}.ca`, '-CAkey', `${name}.ca.key`, '-CAcreateserial'];
  openssl('x509', '-req', ...signed, '-extfile', 'san', '-days', '2', '-out', `${name}.crt`);
  const read = (suffix: string) => readFileSync(join(directory, `${name}.${suffix}`), 'utf8');
  return { ca: read('ca'), cert: read('crt'), key: read('key') };
}

test('mutual TLS: both sides have to show a certificate of the authority', async () => {
  const [ours, theirs] = [identity('ours'), identity('theirs')];
  await using server = await createServer({
    address: { host: '127.0.0.1', port: 0 },
    services: [serve(pantalaV1.Peer, { describe: async () => ({ hostId: 'h' }) })],
    tls: ours,
  });
  using client = createClient(pantalaV1.Peer, server.address, { tls: ours });
  expect((await client.describe({})).hostId).toBe('h');
  using stranger = createClient(pantalaV1.Peer, server.address, { tls: { ...theirs, ca: ours.ca } });
  await expect(stranger.describe({})).rejects.toMatchObject({ code: 'unavailable' });
  using distrustful = createClient(pantalaV1.Peer, server.address, { tls: { ...ours, ca: theirs.ca } });
  await expect(distrustful.describe({})).rejects.toMatchObject({ code: 'unavailable' });
  if (!('port' in server.address)) throw new Error('a TCP address is expected');
  using named = createClient(pantalaV1.Peer, { host: 'localhost', port: server.address.port }, { tls: ours });
  expect((await named.describe({})).hostId).toBe('h');
  using plain = createClient(pantalaV1.Peer, server.address);
  await expect(plain.describe({})).rejects.toMatchObject({ code: 'unavailable' });
});

test('a certificate for another address is refused', async () => {
  const elsewhere = identity('elsewhere', 'IP:127.0.0.2,DNS:localhost');
  await using server = await createServer({
    address: { host: '127.0.0.1', port: 0 },
    services: [serve(pantalaV1.Peer, { describe: async () => ({}) })],
    tls: elsewhere,
  });
  using client = createClient(pantalaV1.Peer, server.address, { tls: elsewhere });
  await expect(client.describe({})).rejects.toMatchObject({ code: 'unavailable' });
});
