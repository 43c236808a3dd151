import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { ask } from '../support/client.ts';
import { serveContent, startOrigin } from '../support/origin.ts';
import { startRig } from '../support/rig.ts';

const run = promisify(execFile);
const content = randomBytes(700_000);

describe('the forward proxy', () => {
  test('curl -x gets a file through a task, and its ranges', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig();
    const curl = async (...args: string[]) => {
      const command = ['-sS', '--fail', '-x', rig.url, ...args, `${origin.url}/files/a`];
      const { stdout } = await run('curl', command, { encoding: 'buffer', maxBuffer: 10_000_000 });
      return stdout;
    };
    expect((await curl('-H', 'X-Dragonfly-Tag: proxy')).equals(content)).toBe(true);
    expect((await curl('-r', '-100')).equals(content.subarray(-100))).toBe(true);
    expect((await curl('-r', '100-')).equals(content.subarray(100))).toBe(true);
    expect(rig.downloader.requests.map(({ request }) => request.tag)).toEqual(['proxy', undefined, undefined]);
  });

  test('other requests pass through', async () => {
    await using origin = await startOrigin((req, res) => res.end(`${req.method} ${req.url}`));
    await using rig = await startRig();
    const answer = await ask(rig.port, `${origin.url}/plain?ns=kept#no`, { method: 'POST', body: 'x' });
    expect(answer.body.toString()).toBe('POST /plain?ns=kept');
    expect(rig.downloader.requests).toHaveLength(0);
  });

  test.each([
    ['ftp://host/file', 400],
    ['http://user:password@host/file', 400],
    ['*', 400],
    [`/${'a'.repeat(9000)}`, 414],
  ])('%.40s is refused', async (target, status) => {
    await using rig = await startRig();
    expect((await ask(rig.port, target)).status).toBe(status);
  });
});

describe('rules', () => {
  test('the first match decides; a direct one passes by the swarm, unless the client asks for it', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({ rules: [{ regex: '/files/private/', direct: true }, { regex: '(?i)/FILES/' }] });
    await ask(rig.port, `${origin.url}/files/private/a`);
    expect(rig.downloader.requests).toHaveLength(0);
    await ask(rig.port, `${origin.url}/files/public/a`);
    expect(rig.downloader.requests).toHaveLength(1);
    await ask(rig.port, `${origin.url}/files/private/a`, { headers: { 'X-Dragonfly-Use-P2P': 'true' } });
    expect(rig.downloader.requests).toHaveLength(2);
    // What was decided for one request is no rule for the next one of the same URL.
    await ask(rig.port, `${origin.url}/files/private/a`);
    await ask(rig.port, `${origin.url}/files/public/a`, { method: 'POST', body: 'x' });
    expect(rig.downloader.requests).toHaveLength(2);
    await ask(rig.port, `${origin.url}/files/public/a`);
    expect(rig.downloader.requests).toHaveLength(3);
  });

  test('they see neither query nor fragment', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({ rules: [{ regex: 'secret' }] });
    await ask(rig.port, `${origin.url}/a?secret`);
    expect(rig.downloader.requests).toHaveLength(0);
  });

  test('useTls, an authority and a replacement rewrite the URL and keep its query', async () => {
    await using rig = await startRig({
      rules: [
        { regex: '/tls/', useTls: true },
        { regex: '/host/', redirect: 'mirror.example:8443', filteredQueryParams: ['sig'] },
        { regex: '^http://(?P<name>[a-z]+)\\.example/old/(.*)$', redirect: `https://cdn.example/$\{name}/$2` },
      ],
    });
    rig.downloader.hooks.beforeOpen = () => {
      throw new Error('seen');
    };
    for (const url of [
      'http://a.example/tls/x?q=1',
      'http://a.example/host/x?sig=1',
      'http://b.example/old/x/y?sig=2',
    ]) {
      await ask(rig.port, url);
    }
    expect(rig.downloader.requests.map(({ request }) => [request.url, request.filteredQueryParams])).toEqual([
      ['https://a.example/tls/x?q=1', undefined],
      ['http://mirror.example:8443/host/x?sig=1', ['sig']],
      ['https://cdn.example/b/x/y?sig=2', undefined],
    ]);
  });

  test('a pattern that would backtrack without end is answered all the same', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({ rules: [{ regex: '^http://(a+|[^b])+$$$c' }, { regex: '(x+x+)+y' }] });
    const answer = await ask(rig.port, `${origin.url}/${'x'.repeat(8000)}`);
    expect(answer.status).toBe(200);
    expect(rig.downloader.requests).toHaveLength(0);
  });

  test.each([['(unclosed'], ['(?=look)'], ['(a)\\1'], ['x'.repeat(2000)]])('%.20s is no pattern', async (regex) => {
    await expect(startRig({ rules: [{ regex }] })).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  test('the older mirror without useProxies shares blobs by sha256, whatever the rules are', async () => {
    await using origin = await startOrigin(serveContent(content));
    await using rig = await startRig({ mirror: { upstream: origin.url, share: 'layers' }, rules: [] });
    await ask(rig.port, `/v2/a/blobs/sha256:${'0'.repeat(64)}`);
    await ask(rig.port, '/files/a');
    expect(rig.downloader.requests).toHaveLength(1);
  });
});
