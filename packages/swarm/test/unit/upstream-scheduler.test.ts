import { createServer, schedulerV2, serve } from '@pantala/api';
import type { ServerAddress } from '@pantala/swarm';
import { Content, Origin, until } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { MEBI } from '../support/cluster.ts';
import { Node } from '../support/node.ts';

/** A scheduler that speaks nothing but Dragonfly's protocol, sends everybody to the origin, and notes what it hears. */
async function dragonflyScheduler(heard: string[]): Promise<AsyncDisposable & { readonly at: ServerAddress }> {
  const server = await createServer({
    address: { host: '127.0.0.1', port: 0 },
    services: [
      serve(schedulerV2.Scheduler, {
        announceHost: async () => ({}),
        deleteHost: async () => ({}),
        async *announcePeer(requests) {
          for await (const { request } of requests) {
            heard.push(request.case ?? '');
            if (request.case !== 'registerPeerRequest') continue;
            yield {
              response: { case: 'needBackToSourceResponse' as const, value: { description: 'you are the first' } },
            };
          }
        },
      }),
    ],
  });
  const { address } = server;
  if ('path' in address) throw new Error('a TCP address was expected');
  return { at: address, [Symbol.asyncDispose]: () => server.stop(0) };
}

test('a download from the origin is told in upstream’s order', async () => {
  const heard: string[] = [];
  await using origin = await Origin.start({ host: '127.0.0.1' });
  await using scheduler = await dragonflyScheduler(heard);
  await using node = await Node.start({ name: 'told', schedulers: [scheduler.at] });
  const content = new Content(6 * MEBI, 'told');
  expect((await node.read({ url: origin.serve('/told', content) })).sha256).toBe(content.sha256);
  await until(() => heard.at(-1) === 'downloadPeerBackToSourceFinishedRequest', { what: 'the end is told' });
  expect(heard).toEqual([
    'registerPeerRequest',
    'downloadPeerBackToSourceStartedRequest',
    'downloadPieceBackToSourceFinishedRequest',
    'downloadPieceBackToSourceFinishedRequest',
    'downloadPeerBackToSourceFinishedRequest',
  ]);
});

test('so is one that failed, once nobody waits for it any more', async () => {
  const heard: string[] = [];
  await using origin = await Origin.start({ host: '127.0.0.1' });
  await using scheduler = await dragonflyScheduler(heard);
  await using node = await Node.start({ name: 'failed', schedulers: [scheduler.at] });
  const content = new Content(MEBI, 'failed');
  const url = origin.serve(`/v2/x/blobs/sha256:${'1'.repeat(64)}`, content);
  await expect(node.read({ url })).rejects.toMatchObject({ code: 'data-loss' });
  await until(() => heard.at(-1) === 'downloadPeerBackToSourceFailedRequest', { what: 'the failure is told' });
});
