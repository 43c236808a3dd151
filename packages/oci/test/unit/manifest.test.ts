import { MEDIA_TYPES, normalizePlatform, parseManifest, parsePlatformText, selectPlatform } from '@pantala/oci';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

const digest = `sha256:${'b'.repeat(64)}`;
const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest, size: 10 };
const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest, size: 2 };
const image = { schemaVersion: 2, config, layers: [layer] };
const bytes = (document: unknown) => Buffer.from(typeof document === 'string' ? document : JSON.stringify(document));

describe('manifests', () => {
  test.each([
    [image, undefined, 'image', MEDIA_TYPES.ociManifest],
    [image, MEDIA_TYPES.dockerManifest, 'image', MEDIA_TYPES.dockerManifest],
    [image, `${MEDIA_TYPES.ociManifest}; charset=utf-8`, 'image', MEDIA_TYPES.ociManifest],
    [image, 'application/json', 'image', MEDIA_TYPES.ociManifest],
    [{ ...image, mediaType: MEDIA_TYPES.dockerManifest }, undefined, 'image', MEDIA_TYPES.dockerManifest],
    [{ schemaVersion: 2, manifests: [] }, undefined, 'index', MEDIA_TYPES.ociIndex],
    [{ schemaVersion: 2, manifests: [layer] }, MEDIA_TYPES.dockerList, 'index', MEDIA_TYPES.dockerList],
  ])('%# are told apart by what they say and have', (document, type, kind, mediaType) => {
    expect(parseManifest(bytes(document), type)).toMatchObject({ kind, mediaType });
  });

  test('an artifact with subject and annotations', () => {
    const artifact = {
      ...image,
      artifactType: 'a/b',
      subject: { ...layer, annotations: { x: 'y', n: 1 } },
      layers: [],
    };
    const manifest = parseManifest(bytes(artifact));
    expect(manifest).toMatchObject({ kind: 'image', artifactType: 'a/b', layers: [] });
    expect([...(manifest.subject?.annotations ?? [])]).toEqual([['x', 'y']]);
  });

  test.each([
    ['no JSON', '{'],
    ['is no object', '[]'],
    ['"schemaVersion": 2', { config, layers: [] }],
    ['two different images', { ...image, manifests: [] }],
    ['was sent as', { ...image, mediaType: MEDIA_TYPES.dockerManifest }],
    ['unknown media type', { ...image, mediaType: 'text/plain' }],
    ['was sent as', { ...image, mediaType: MEDIA_TYPES.ociIndex }],
    ['layers is no list', { schemaVersion: 2, config }],
    ['layers[0].digest', { ...image, layers: [{ ...layer, digest: 'sha256:1' }] }],
    ['layers[0].size', { ...image, layers: [{ ...layer, size: -1 }] }],
    ['layers[0].size', { ...image, layers: [{ ...layer, size: 1.5 }] }],
    ['layers[0] has no mediaType', { ...image, layers: [{ digest, size: 1 }] }],
    ['at most', { ...image, layers: Array.from({ length: 5000 }, () => layer) }],
    ['at most', ' '.repeat(5 * 1024 * 1024)],
    ['is no JSON', '['.repeat(2_000_000)],
  ])('%s: %#', (message, document) => {
    expect(() => parseManifest(bytes(document), MEDIA_TYPES.ociManifest)).toThrow(message);
  });

  test('an index without manifests', () => {
    expect(() => parseManifest(bytes({ ...image, mediaType: MEDIA_TYPES.ociIndex }))).toThrow('has no manifests');
  });

  test('schema 1 is refused by name', () => {
    expect(() => parseManifest(bytes({ schemaVersion: 1 }))).toThrow(/schema 1/);
  });

  test('a key __proto__ is a key like any other', () => {
    const text = JSON.stringify(image).replace(
      '"schemaVersion"',
      '"__proto__":{"polluted":1,"artifactType":"x"},"schemaVersion"',
    );
    const manifest = parseManifest(bytes(text));
    expect(manifest.artifactType).toBeUndefined();
    expect(Object.prototype).not.toHaveProperty('polluted');
    const annotated = parseManifest(
      bytes(JSON.stringify({ ...image, annotations: {} }).replace('"annotations":{', '"annotations":{"__proto__":"v"')),
    );
    expect(annotated.annotations.get('__proto__')).toBe('v');
  });
});

describe('whatever comes', () => {
  const valid = bytes({ ...image, subject: layer, annotations: { a: 'b' } });

  test('is a manifest or an error that says so', () => {
    const mutated = fc
      .array(fc.tuple(fc.nat(valid.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 })
      .map((changes) => {
        const copy = Buffer.from(valid);
        for (const [at, value] of changes) copy[at] = value;
        return copy;
      });
    const any = fc.json({ maxDepth: 5 }).map((text) => bytes(text));
    const like = fc.record(
      { schemaVersion: fc.constant(2), config: fc.anything(), layers: fc.anything(), manifests: fc.anything() },
      { requiredKeys: [] },
    );
    const documents = fc.oneof(
      mutated,
      any,
      like.map((document) => Buffer.from(stringify(document))),
    );
    fc.assert(
      fc.property(documents, (document) => {
        try {
          expect(['image', 'index']).toContain(parseManifest(document).kind);
        } catch (error) {
          expect(error).toMatchObject({
            name: 'PantalaError',
            code: expect.stringMatching(/invalid-argument|unimplemented/),
          });
        }
      }),
      { numRuns: 3000 },
    );
  });

  function stringify(value: unknown): string {
    return JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? Number(part) : part)) ?? 'null';
  }
});

describe('platforms', () => {
  const entry = (text: string, size: number) => ({ ...layer, size, platform: text === '' ? undefined : split(text) });
  const split = (text: string) => {
    const [os, architecture, variant] = text.split('/');
    return { os, architecture, variant };
  };
  const choose = (offered: string[], wanted: string) => {
    const index = parseManifest(bytes({ schemaVersion: 2, manifests: offered.map((text, at) => entry(text, at)) }));
    if (index.kind !== 'index') throw new Error('no index');
    return offered[selectPlatform(index, parsePlatformText(wanted)).size];
  };

  test.each([
    [['linux/arm64', 'linux/amd64'], 'linux/amd64', 'linux/amd64'],
    [['linux/arm64/v8', 'linux/amd64'], 'linux/arm64', 'linux/arm64/v8'],
    [['', 'unknown/unknown', 'linux/amd64'], 'linux/x86_64', 'linux/amd64'],
    [['linux/arm/v5', 'linux/arm/v6'], 'linux/arm/v7', 'linux/arm/v6'],
    [['linux/arm/v7', 'linux/arm'], 'linux/arm', 'linux/arm/v7'],
    [['linux/amd64/v3', 'linux/amd64'], 'linux/amd64/v2', 'linux/amd64'],
  ])('of %j for %s: %s', (offered, wanted, chosen) => {
    expect(choose(offered, wanted)).toBe(chosen);
  });

  test('a newer variant than wanted is none, and the error lists what there is', () => {
    expect(() => choose(['linux/arm/v7', 'windows/amd64'], 'linux/arm/v6')).toThrow('linux/arm/v7, windows/amd64');
  });

  test('names', () => {
    expect(normalizePlatform({ os: 'Linux', architecture: 'aarch64', variant: 'v8' })).toEqual({
      os: 'linux',
      architecture: 'arm64',
    });
    expect(() => parsePlatformText('linux')).toThrow(/os\/architecture/);
  });
});
