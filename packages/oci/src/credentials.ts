import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';
import { DOCKER_HUB, registryHost } from './registry-host.ts';

/** What proves to a registry (or its token server) who asks. */
export type Credentials =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  /** A refresh token that the token server takes (`docker login` of some clouds). */
  | { readonly kind: 'identity'; readonly token: string }
  /** A bearer token for the registry itself. */
  | { readonly kind: 'registry'; readonly token: string };

/** Credentials by registry host (`host[:port]`); undefined means anonymous. */
export type CredentialSource = (host: string) => Promise<Credentials | undefined>;

export const anonymous: CredentialSource = async () => undefined;

/** Bytes of a Docker configuration file. */
const MAX_CONFIG_BYTES = 1024 * 1024;

/**
 * Credentials from a Docker configuration file (`auths`), read again each time so that a new login is seen. A missing
 * file means anonymous; credential helpers are not run.
 *
 * @param path default `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`
 */
export function dockerConfigCredentials(path?: string): CredentialSource {
  const file = path ?? join(process.env.DOCKER_CONFIG ?? join(homedir(), '.docker'), 'config.json');
  return async (host) => {
    const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw PantalaError.from(error);
    });
    if (text === undefined) return undefined;
    if (text.length > MAX_CONFIG_BYTES) throw new PantalaError('failed-precondition', `${file} has more than 1 MiB`);
    return credentialsFor(host, parse(text, file), file);
  };
}

function parse(text: string, file: string): Map<string, unknown> {
  try {
    const document: unknown = JSON.parse(text);
    const auths = isObject(document) ? new Map(Object.entries(document)).get('auths') : undefined;
    return new Map(isObject(auths) ? Object.entries(auths) : []);
  } catch (error) {
    throw new PantalaError('failed-precondition', `${file} is no JSON`, { cause: error });
  }
}

function credentialsFor(host: string, auths: Map<string, unknown>, file: string): Credentials | undefined {
  const wanted = registryHost(host);
  for (const [key, value] of auths) {
    if (registryHost(hostOfKey(key)) === wanted && isObject(value)) return credentialsOf(value, key, file);
  }
  return undefined;
}

/** Keys are hosts, or URLs as old clients wrote them (`https://index.docker.io/v1/`). */
function hostOfKey(key: string): string {
  const host = key.replace(/^https?:\/\//, '').split('/')[0] ?? '';
  return host === 'index.docker.io' || host === 'registry-1.docker.io' ? DOCKER_HUB : host;
}

function credentialsOf(value: object, key: string, file: string): Credentials | undefined {
  const entry = new Map(Object.entries(value));
  const text = (name: string) => {
    const field: unknown = entry.get(name);
    return typeof field === 'string' && field !== '' ? field : undefined;
  };
  const identity = text('identitytoken');
  if (identity !== undefined) return { kind: 'identity', token: identity };
  const registry = text('registrytoken');
  if (registry !== undefined) return { kind: 'registry', token: registry };
  const decoded = Buffer.from(text('auth') ?? '', 'base64').toString();
  const colon = decoded.indexOf(':');
  if (decoded !== '' && colon < 0) {
    throw new PantalaError('failed-precondition', `${file}: "auth" of ${key} is not user:password in base64`);
  }
  const username = text('username') ?? decoded.slice(0, Math.max(0, colon));
  // Old clients padded the password with zero bytes.
  const password = text('password') ?? decoded.slice(colon + 1).replace(/\0+$/, '');
  return username === '' ? undefined : { kind: 'password', username, password };
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
