import { monotonicNow, proxySocketOf } from '@pantala/base';
import { registrySources, type SourceChain } from '@pantala/lazyfs';
import { Registry as RegistryClient } from '@pantala/oci';
import { Content, loopbackPlace, Registry, Swarm, until } from '@pantala/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';

const BYTES = 8 * 1024 * 1024;
const content = new Content(BYTES, 'lazy sources');
const bytes = content.slice(0, BYTES);
const id = content.sha256;

let registry: Registry;
let swarm: Swarm;

beforeAll(async () => {
  registry = await Registry.start({ place: loopbackPlace() });
  const repository = new RegistryClient(registry.url).repository('some/image');
  await repository.putBlob({ digest: `sha256:${id}`, size: BYTES, open: () => [bytes] });
  swarm = await Swarm.start({
    scheduler: loopbackPlace(),
    seeds: [loopbackPlace()],
    peers: [loopbackPlace(), loopbackPlace()],
  });
});

afterAll(async () => {
  await swarm[Symbol.asyncDispose]();
  await registry[Symbol.asyncDispose]();
});

function chainOf(node: { readonly socket: string }): SourceChain {
  return registrySources({
    registry: registry.url,
    repository: 'some/image',
    peerSocket: proxySocketOf(node.socket),
  });
}

async function read(chain: SourceChain, start: number, end: number): Promise<string> {
  const signal = AbortSignal.timeout(30_000);
  const fetched = await chain.fetch(id, { start, end }, { urgency: 'demand', signal, avoid: new Set(), progress() {} });
  expect(Buffer.from(fetched.bytes).equals(bytes.subarray(start, end))).toBe(true);
  return fetched.source;
}

test('lazy reads go through the peer of this machine and the swarm; the registry gives each block once', async () => {
  const [first, second] = swarm.peers.map(chainOf) as [SourceChain, SourceChain];
  await using _first = first;
  await using _second = second;
  for (let at = 0; at < 40; at++) {
    const start = (at * 7919 * 16_384) % (BYTES - 200_000);
    expect(await read(first, start, start + 131_072)).toBe('peer');
    expect(await read(second, start, start + 131_072)).toBe('peer');
  }
  const given = registry.accesses().filter(({ path }) => path.includes(id));
  const sum = given.reduce((total, { bytes: each }) => total + each, 0);
  expect(sum).toBeLessThanOrEqual(BYTES);
});

test('a peer that is killed or frozen costs one reader half a second, and is used again when it is back', async () => {
  await using chain = chainOf(swarm.peer);
  expect(await read(chain, 0, 1000)).toBe('peer');
  const { program } = swarm.peer;
  program.signal('SIGSTOP');
  const began = monotonicNow();
  expect(await read(chain, 1000, 200_000)).toContain('registry');
  // Half a second on a quiet machine; the request alone would have waited ten.
  expect(monotonicNow() - began).toBeLessThan(3_000);
  program.signal('SIGCONT');
  await until(async () => (await read(chain, 0, 1000)) === 'peer', { what: 'the peer is asked again' });

  await swarm.peer.kill();
  expect(await read(chain, 5000, 200_000)).toContain('registry');
  await swarm.peer.start();
  await until(async () => (await read(chain, 0, 1000)) === 'peer', { what: 'the peer is asked again' });
});
