import { expect, test } from 'vitest';
import { registryUrl } from '../../src/index.ts';

test.each([
  ['registry.example', 'https://registry.example'],
  ['registry.example:5000', 'https://registry.example:5000'],
  ['127.registry.example', 'https://127.registry.example'],
  ['localhost:5000', 'http://localhost:5000'],
  ['127.3.2.1:5000', 'http://127.3.2.1:5000'],
  ['[::1]:5000', 'http://[::1]:5000'],
])('%s is asked at %s', (domain, url) => {
  expect(registryUrl(domain).origin).toBe(url);
});

test('plain HTTP where the caller says so', () => {
  expect(registryUrl('registry.example', { plainHttp: true }).origin).toBe('http://registry.example');
});
