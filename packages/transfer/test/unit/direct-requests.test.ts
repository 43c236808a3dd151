import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { CONTENT, failure, fetched, open } from '../support/http-content.ts';
import { response, scriptedServer } from '../support/scripted-server.ts';

describe('requests that pass through', () => {
  it('sends method, body and headers, and gives back status, headers and body as they are', async () => {
    await using server = await scriptedServer((request) => response(302, { Location: '/x', 'X-A': 'b' }, request.body));
    await using origin = open();
    async function* body() {
      yield Buffer.from('hello ');
      yield Buffer.from('world');
    }
    const answer = await origin.direct.request({
      method: 'PUT',
      url: new URL(`${server.url}/upload?x=1`),
      headers: ['X-Case', 'Kept', 'Content-Length', '11', 'Connection', 'keep-alive'],
      body: body(),
      signal: new AbortController().signal,
    });
    expect(answer.status).toBe(302);
    expect(answer.headers).toContain('X-A');
    expect(Buffer.concat(await answer.body.toArray()).toString()).toBe('hello world');
    expect(server.requests[0]).toMatchObject({ method: 'PUT', path: '/upload?x=1', headers: { 'x-case': 'Kept' } });
  });

  it('HEAD has no body', async () => {
    await using server = await scriptedServer(() => response(200, { 'Content-Length': 77 }));
    await using origin = open();
    const { signal } = new AbortController();
    for (let i = 0; i < 2; i++) {
      const answer = await origin.direct.request({ method: 'HEAD', url: new URL(server.url), headers: [], signal });
      expect(await answer.body.toArray()).toHaveLength(0);
    }
    expect(server.connections).toBe(1);
  });

  it('lets go of answers that nobody reads', async () => {
    await using server = await scriptedServer(() => response(200, {}, CONTENT));
    await using origin = open({ requestsPerHost: 1 });
    const { signal } = new AbortController();
    for (let i = 0; i < 3; i++) {
      const answer = await origin.direct.request({ method: 'GET', url: new URL(server.url), headers: [], signal });
      answer.body.destroy();
    }
    expect((await fetched(origin, server.url)).equals(CONTENT)).toBe(true);
  });

  it('gives the refusal of an upload that is not read to its end, and leaves the body alone', async () => {
    await using server = await scriptedServer((_, socket) => void socket.end(response(413, { Connection: 'close' })));
    await using origin = open();
    const release = Promise.withResolvers<void>();
    const body = Readable.from(
      (async function* () {
        yield Buffer.alloc(10);
        await release.promise;
        yield Buffer.alloc(10);
      })(),
    );
    const { signal } = new AbortController();
    const url = new URL(server.url);
    const answer = await origin.direct.request({ method: 'PUT', url, headers: [], body, signal });
    expect(answer.status).toBe(413);
    expect(body.destroyed).toBe(false);
    release.resolve();
  });

  it('tunnels only to allowed addresses', async () => {
    await using server = await scriptedServer(() => response(200, {}));
    await using origin = open({ addresses: { ownListeners: () => [{ host: '0.0.0.0', port: server.port }] } });
    const { signal } = new AbortController();
    const error = await failure(origin.direct.connect({ host: 'localhost', port: server.port, signal }));
    expect(error.code).toBe('permission-denied');
  });
});
