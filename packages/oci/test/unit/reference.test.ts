import { formatReference, manifestReference, parseReference, registryHost, shortReference } from '@pantala/oci';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

const digest = `sha256:${'a'.repeat(64)}`;

describe('references', () => {
  test.each([
    ['alpine', 'docker.io/library/alpine', 'alpine'],
    ['user/app:1.0', 'docker.io/user/app:1.0', 'user/app:1.0'],
    ['index.docker.io/alpine', 'docker.io/library/alpine', 'alpine'],
    ['docker.io/a/b/c', 'docker.io/a/b/c', 'a/b/c'],
    ['localhost/app', 'localhost/app', 'localhost/app'],
    ['localhost:5000/app:v1', 'localhost:5000/app:v1', 'localhost:5000/app:v1'],
    ['127.0.0.1:5000/a_b/c__d/e-f.g', '127.0.0.1:5000/a_b/c__d/e-f.g', '127.0.0.1:5000/a_b/c__d/e-f.g'],
    ['[::1]:5000/app', '[::1]:5000/app', '[::1]:5000/app'],
    ['[2001:db8::1]/app:t', '[2001:db8::1]/app:t', '[2001:db8::1]/app:t'],
    ['Registry/app', 'Registry/app', 'Registry/app'],
    [`ghcr.io/o/app:1@${digest}`, `ghcr.io/o/app:1@${digest}`, `ghcr.io/o/app:1@${digest}`],
    [`app@${digest}`, `docker.io/library/app@${digest}`, `app@${digest}`],
    ['library/alpine', 'docker.io/library/alpine', 'alpine'],
  ])('%s', (text, full, short) => {
    const reference = parseReference(text);
    expect(formatReference(reference)).toBe(full);
    expect(shortReference(reference)).toBe(short);
    expect(parseReference(shortReference(reference))).toEqual(reference);
  });

  test.each([
    '',
    ':tag',
    'a//b',
    'App',
    'a/B',
    'a:',
    'a:-x',
    `a:${'t'.repeat(129)}`,
    'a@sha256:abc',
    `a@sha256:${'A'.repeat(64)}`,
    'a@md5',
    'a'.repeat(64),
    'a..b',
    '-a',
    'a-',
    'host:port/a',
    '[::1/a',
    'https://ghcr.io/a',
    `a/${'b'.repeat(300)}`,
    'a b',
    '../etc/passwd',
  ])('%s is none', (text) => {
    expect(() => parseReference(text)).toThrow(/image reference/);
  });

  test('what is asked of the registry', () => {
    expect(manifestReference(parseReference('a'))).toBe('latest');
    expect(manifestReference(parseReference(`a:1@${digest}`))).toBe(digest);
    expect([registryHost('docker.io'), registryHost('ghcr.io')]).toEqual(['registry-1.docker.io', 'ghcr.io']);
  });

  test('whatever is accepted comes out the same', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[a-zA-Z0-9._:/@[\]-]{1,40}$/), (text) => {
        let reference: ReturnType<typeof parseReference>;
        try {
          reference = parseReference(text);
        } catch {
          return;
        }
        expect(parseReference(formatReference(reference))).toEqual(reference);
      }),
      { numRuns: 2000 },
    );
  });
});
