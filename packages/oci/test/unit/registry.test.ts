import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Credentials, dockerConfigCredentials, MEDIA_TYPES, Registry, type Repository } from '@pantala/oci';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { htpasswd, startRegistry, type TestRegistry } from '../support/registry.ts';
import { startTokenServer, type TokenServer } from '../support/token-server.ts';

const sha256 = (data: Buffer) => `sha256:${createHash('sha256').update(data).digest('hex')}`;

async function put(repository: Repository, data: Buffer, options: { chunkLength?: number; mountFrom?: string } = {}) {
  const blob = { digest: sha256(data), size: data.length, open: () => [data.subarray(0, 1000), data.subarray(1000)] };
  return { digest: blob.digest, size: blob.size, outcome: await repository.putBlob(blob, options) };
}

async function get(
  repository: Repository,
  blob: { digest: string; size: number },
  range?: { start: number; end: number },
) {
  const chunks: Buffer[] = [];
  for await (const chunk of repository.blob(blob, range === undefined ? {} : { range }))
    chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

async function putImage(repository: Repository, tag: string, extra: object = {}) {
  const config = Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', tag }));
  const { digest, size } = await put(repository, config);
  const descriptor = { mediaType: 'application/vnd.oci.image.config.v1+json', digest, size };
  const bytes = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociManifest, config: descriptor, layers: [], ...extra }),
  );
  const pushed = await repository.putManifest(tag, bytes, MEDIA_TYPES.ociManifest);
  return { digest: pushed, size: bytes.length, mediaType: MEDIA_TYPES.ociManifest };
}

describe('an open registry', () => {
  let registry: TestRegistry;
  let client: Registry;
  beforeAll(async () => {
    registry = await startRegistry();
    client = new Registry(registry.url);
  });
  afterAll(() => registry[Symbol.asyncDispose]());

  test.each([undefined, 700_000])(
    'a blob goes up (chunks of %s) and comes down, whole and in ranges',
    async (chunkLength) => {
      const repository = client.repository('group/app');
      const data = randomBytes(2_000_000);
      const blob = await put(repository, data, chunkLength === undefined ? {} : { chunkLength });
      expect(blob.outcome).toBe('uploaded');
      expect((await put(repository, data)).outcome).toBe('existed');
      expect(await repository.blobSize(blob.digest)).toBe(data.length);
      expect((await get(repository, blob)).equals(data)).toBe(true);
      expect((await get(repository, blob, { start: 100, end: 5_000 })).equals(data.subarray(100, 5_000))).toBe(true);
      expect(await repository.blobSize(`sha256:${'0'.repeat(64)}`)).toBeUndefined();
      const other = client.repository('other');
      expect((await put(other, data, { mountFrom: 'group/app' })).outcome).toBe('mounted');
      expect((await get(other, blob)).equals(data)).toBe(true);
    },
  );

  test('an empty blob', async () => {
    const repository = client.repository('empty');
    const blob = await put(repository, Buffer.alloc(0));
    expect(await get(repository, blob)).toHaveLength(0);
  });

  test('content that is not what its digest says does not go up', async () => {
    const repository = client.repository('liar');
    const blob = { digest: sha256(Buffer.from('other')), size: 4, open: () => [Buffer.from('this')] };
    await expect(repository.putBlob(blob)).rejects.toMatchObject({
      code: 'invalid-argument',
      message: expect.stringContaining('DIGEST_INVALID'),
    });
  });

  test('manifests by tag and digest, an index by platform', async () => {
    const repository = client.repository('images');
    const amd = await putImage(repository, 'amd');
    const arm = await putImage(repository, 'arm');
    const index = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        manifests: [
          { ...amd, platform: { os: 'linux', architecture: 'amd64' } },
          { ...arm, platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } },
        ],
      }),
    );
    const digest = await repository.putManifest('both', index, MEDIA_TYPES.ociIndex);
    const nested = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        manifests: [{ mediaType: MEDIA_TYPES.ociIndex, digest, size: index.length }],
      }),
    );
    await repository.putManifest('nested', nested, MEDIA_TYPES.ociIndex);
    expect(await repository.headManifest('both')).toEqual({
      digest,
      mediaType: MEDIA_TYPES.ociIndex,
      size: index.length,
    });
    expect(await repository.headManifest('none')).toBeUndefined();
    for (const name of ['both', digest, 'nested']) {
      const resolved = await repository.resolve(name, { os: 'linux', architecture: 'arm64' });
      expect(resolved.digest).toBe(arm.digest);
      expect(resolved.indexes).toHaveLength(name === 'nested' ? 2 : 1);
    }
    await expect(repository.resolve('both', { os: 'windows', architecture: 'amd64' })).rejects.toThrow(
      'linux/amd64, linux/arm64',
    );
    await expect(repository.manifest('none')).rejects.toMatchObject({ code: 'not-found', details: { status: 404 } });
    await expect(repository.manifest('../x')).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  test('tags', async () => {
    const repository = client.repository('tagged');
    const names = ['a', 'b', 'c', 'd', 'e'];
    for (const name of names) await putImage(repository, name);
    const tags: string[] = [];
    for await (const tag of repository.tags({ pageLength: 2 })) tags.push(tag);
    expect(tags.sort()).toEqual(names);
  });

  test('referrers from the tag, where the registry lacks the API', async () => {
    const repository = client.repository('signed');
    const subject = await putImage(repository, 'subject');
    expect(await repository.referrers(subject.digest)).toEqual([]);
    const signature = await putImage(repository, 'signature', { artifactType: 'a/signature', subject });
    const index = {
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociIndex,
      manifests: [{ ...signature, artifactType: 'a/signature' }],
    };
    await repository.putManifest(
      subject.digest.replace(':', '-'),
      Buffer.from(JSON.stringify(index)),
      MEDIA_TYPES.ociIndex,
    );
    expect(await repository.referrers(subject.digest, { artifactType: 'a/signature' })).toMatchObject([
      { digest: signature.digest },
    ]);
    expect(await repository.referrers(subject.digest, { artifactType: 'other' })).toEqual([]);
  });
});

describe('a registry with basic authentication', () => {
  test('takes what the Docker configuration says, and explains what is missing', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'docker-config-'));
    const path = join(directory, 'config.json');
    await using registry = await startRegistry(htpasswd('user', 'pass:word'));
    const host = new URL(registry.url).host;
    const login = (auth: string) =>
      writeFileSync(path, JSON.stringify({ auths: { [`http://${host}/v1/`]: { auth } } }));
    const client = new Registry(registry.url, { credentials: dockerConfigCredentials(path) });
    await expect(client.ping()).rejects.toMatchObject({
      code: 'unauthenticated',
      message: expect.stringContaining('log in'),
    });
    login(Buffer.from('user:wrong').toString('base64'));
    await expect(client.ping()).rejects.toMatchObject({
      code: 'unauthenticated',
      message: expect.stringContaining('does not accept'),
    });
    login(Buffer.from('user:pass:word').toString('base64'));
    await client.ping();
    const data = randomBytes(100_000);
    expect((await get(client.repository('a'), await put(client.repository('a'), data))).equals(data)).toBe(true);
    rmSync(directory, { recursive: true });
  });
});

describe('a registry with tokens', () => {
  let tokens: TokenServer;
  let registry: TestRegistry;
  beforeAll(async () => {
    tokens = await startTokenServer();
    registry = await startRegistry(tokens.auth);
  });
  afterAll(async () => {
    await registry[Symbol.asyncDispose]();
    await tokens[Symbol.asyncDispose]();
  });
  const client = (credentials?: Credentials) => new Registry(registry.url, { credentials: async () => credentials });
  const user: Credentials = { kind: 'password', username: 'user', password: 'secret' };

  test('each scope gets one token, which is used until it ends', async () => {
    const writer = client(user).repository('team/app');
    const data = randomBytes(100_000);
    const blob = await put(writer, data);
    await put(writer, randomBytes(10));
    const before = tokens.requests.length;
    expect((await get(writer, blob)).equals(data)).toBe(true);
    expect(tokens.requests.length).toBe(before);
    const scopes = tokens.requests.map(({ parameters }) => parameters.getAll('scope').join(' '));
    expect(new Set(scopes).size).toBe(scopes.length);
    expect(tokens.requests[0]?.parameters.get('service')).toBe('test');
    const reader = client().repository('team/app');
    expect((await get(reader, blob)).equals(data)).toBe(true);
    expect(tokens.requests.at(-1)?.authorization).toBeUndefined();
    await expect(put(reader, randomBytes(10))).rejects.toMatchObject({
      code: expect.stringMatching(/unauthenticated|permission-denied/),
    });
  });

  test('a token that is about to end is fetched anew', async () => {
    tokens.lifetime = 5;
    const repository = client(user).repository('short');
    const blob = await put(repository, randomBytes(10));
    const before = tokens.requests.length;
    await get(repository, blob);
    expect(tokens.requests.length).toBeGreaterThan(before);
    tokens.lifetime = 300;
  });

  test('an identity token goes to the token server by POST', async () => {
    const repository = client({ kind: 'identity', token: 'refresh-me' }).repository('identity');
    await put(repository, randomBytes(10));
    expect(tokens.requests.at(-1)).toMatchObject({ method: 'POST' });
    expect(tokens.requests.at(-1)?.parameters.get('grant_type')).toBe('refresh_token');
    const wrong = client({ kind: 'identity', token: 'stale' }).repository('identity');
    await expect(put(wrong, randomBytes(10))).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  test('a mount asks for both repositories', async () => {
    const data = randomBytes(1000);
    await put(client(user).repository('source'), data);
    expect((await put(client(user).repository('target'), data, { mountFrom: 'source' })).outcome).toBe('mounted');
  });
});
