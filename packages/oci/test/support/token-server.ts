import { execFileSync } from 'node:child_process';
import { randomUUID, sign } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startServer, type TestServer } from './server.ts';

export interface TokenRequest {
  readonly method: string;
  readonly authorization: string | undefined;
  readonly parameters: URLSearchParams;
}

export interface TokenServer extends TestServer {
  readonly requests: TokenRequest[];
  /** For the registry's `auth` section. */
  readonly auth: () => object;
  /** Seconds that tokens are valid for. */
  lifetime: number;
}

/**
 * A token server that signs for anybody's pull and for `user:secret` (or the refresh token `refresh-me`) to push.
 */
export async function startTokenServer(): Promise<TokenServer> {
  const directory = mkdtempSync(join(tmpdir(), 'token-'));
  const cert = join(directory, 'cert.pem');
  const key = join(directory, 'key.pem');
  const args = [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-subj',
    '/CN=issuer',
  ];
  execFileSync('openssl', [...args, '-days', '2', '-keyout', key, '-out', cert], { stdio: 'ignore' });
  const chain = readFileSync(cert, 'utf8').replaceAll(/-----[^-]+-----|\s/g, '');
  const requests: TokenRequest[] = [];
  const server = await startServer((req, res, body) => {
    const parameters =
      req.method === 'POST' ? new URLSearchParams(body) : new URL(req.url ?? '', 'http://x').searchParams;
    const { authorization } = req.headers;
    requests.push({ method: req.method ?? '', authorization, parameters });
    const known =
      authorization === `Basic ${Buffer.from('user:secret').toString('base64')}` ||
      parameters.get('refresh_token') === 'refresh-me';
    if (!known && (authorization !== undefined || req.method === 'POST')) return void res.writeHead(401).end();
    const token = jwt(key, chain, parameters, known, tokens.lifetime);
    res.end(JSON.stringify(req.method === 'POST' ? { access_token: token } : { token, expires_in: tokens.lifetime }));
  });
  const tokens: TokenServer = {
    ...server,
    requests,
    lifetime: 300,
    auth: () => ({ token: { realm: `${server.url}/token`, service: 'test', issuer: 'issuer', rootcertbundle: cert } }),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return tokens;
}

function jwt(keyPath: string, chain: string, asked: URLSearchParams, known: boolean, lifetime: number): string {
  const scopes = asked.getAll('scope').flatMap((scope) => scope.split(' '));
  const access = scopes.map((scope) => {
    const [type, name, actions = ''] = scope.split(':');
    return { type, name, actions: actions.split(',').filter((action) => known || action === 'pull') };
  });
  const now = Math.floor(Date.now() / 1000);
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = {
    iss: 'issuer',
    sub: '',
    aud: 'test',
    exp: now + lifetime,
    nbf: now - 60,
    iat: now,
    jti: randomUUID(),
    access,
  };
  const text = `${encode({ typ: 'JWT', alg: 'ES256', x5c: [chain] })}.${encode(claims)}`;
  const key = { key: readFileSync(keyPath, 'utf8'), dsaEncoding: 'ieee-p1363' as const };
  return `${text}.${sign('sha256', Buffer.from(text), key).toString('base64url')}`;
}
