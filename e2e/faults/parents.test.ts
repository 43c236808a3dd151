import { closeSync, openSync, readdirSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { type Fault, loopbackPlace, type Node, Relay } from '@pantala/testkit';
import { afterEach, expect, test } from 'vitest';
import { FULL, MIB, Stage } from '../lib/stage.ts';
import { crowd, expectHonest, expectRight, ORIGIN_RATE, underway } from './lib.ts';

let stage: Stage;
let relays: Relay[] = [];
afterEach(async () => {
  await stage[Symbol.asyncDispose]();
  for (const relay of relays) await relay[Symbol.asyncDispose]();
  relays = [];
});

const LENGTH = 30 * MIB;
const PIECES_PORT = 4005;

/** A swarm in which the piece port of the named nodes is reached through a relay. */
async function relayed(names: readonly string[], peers: number): Promise<ReadonlyMap<string, Relay>> {
  const places = Array.from({ length: peers }, loopbackPlace);
  const behind = new Map(names.map((name) => [name, loopbackPlace().address]));
  const nodes = Object.fromEntries([...behind].map(([name, ip]) => [name, { storage: { server: { ip } } }]));
  stage = await Stage.start({ peers: places, settings: { nodes } });
  const made = new Map<string, Relay>();
  for (const node of stage.swarm.nodes) {
    const ip = behind.get(node.name);
    if (ip === undefined) continue;
    const listen = { host: node.place.address, port: PIECES_PORT };
    made.set(node.name, await Relay.start({ host: ip, port: PIECES_PORT }, listen));
  }
  relays = [...made.values()];
  return made;
}

const FAULTS: readonly { readonly name: string; readonly fault: Fault }[] = [
  { name: 'wrong bytes', fault: { kind: 'corrupt', every: 50_000 } },
  { name: 'wrong bytes in every packet', fault: { kind: 'corrupt', every: 7 } },
  { name: 'too little', fault: { kind: 'truncate', after: 100_000 } },
  { name: 'nothing', fault: { kind: 'stall' } },
  { name: 'one byte a second', fault: { kind: 'throttle', bytesPerSecond: 1 } },
  { name: 'a reset', fault: { kind: 'cut' } },
];

const PLACES = [
  { place: 'is the seed, and the origin is there', prove: badSeed },
  { place: 'is one of the peers', prove: badPeer },
  { place: 'begins to do so in the middle', prove: badInTheMiddle },
  { place: 'serves a range', prove: badForARange },
];

/** Each fault in each place; the quick set takes every second pair, so that it has all faults and all places. */
const CASES = FAULTS.flatMap(({ name, fault }, row) =>
  PLACES.filter((_, column) => FULL || (row + column) % 2 === 0).map((where) => ({ name, fault, ...where })),
);

test.each(CASES)('a parent that sends $name $place', ({ fault, prove }) => prove(fault));

async function badSeed(fault: Fault): Promise<void> {
  const made = await relayed(['seed1'], 2);
  const relay = made.get('seed1');
  if (relay === undefined) throw new Error('no relay');
  relay.fault = fault;
  const served = stage.serveBlob(LENGTH);
  expectRight(await crowd(stage, served), served);
}

async function badPeer(fault: Fault): Promise<void> {
  const made = await relayed(['node1'], 3);
  const served = stage.serveBlob(LENGTH);
  const [liar, ...others] = stage.swarm.peers;
  if (liar === undefined) throw new Error('no peers');
  expectRight([await stage.fetch(liar, served.url)], served);
  const relay = made.get('node1');
  if (relay === undefined) throw new Error('no relay');
  relay.fault = fault;
  expectRight(await Promise.all(others.map((peer) => stage.fetch(peer, served.url))), served);
  expect(stage.origin.count(served.path).bytes / LENGTH).toBeLessThanOrEqual(1.02);
}

async function badInTheMiddle(fault: Fault): Promise<void> {
  const made = await relayed(['seed1', 'node1'], 3);
  const served = stage.serveBlob(LENGTH, { bytesPerSecond: ORIGIN_RATE });
  const answers = crowd(stage, served);
  await underway(stage, served, 0.3);
  for (const relay of made.values()) relay.fault = fault;
  expectRight(await answers, served);
}

async function badForARange(fault: Fault): Promise<void> {
  const made = await relayed(['seed1'], 2);
  const served = stage.serve(LENGTH);
  await stage.fetch(stage.swarm.seed, served.url);
  for (const relay of made.values()) relay.fault = fault;
  const headers = { range: 'bytes=20000000-20099999' };
  const answer = await stage.fetch(stage.swarm.peer, served.url, { headers });
  expect(answer).toMatchObject({ status: 206, sha256: served.content.sha256Of(20_000_000, 20_100_000) });
}

test('a silent seed, and an origin that knows no ranges: its one stream serves whoever waits', async () => {
  const made = await relayed(['seed1'], 2);
  for (const relay of made.values()) relay.fault = { kind: 'stall' };
  const served = stage.serveBlob(LENGTH, { noRanges: true });
  const { peers } = stage.swarm;
  // Before the scheduler gives up on the seed, which takes half a minute.
  const answers = peers.map((peer) => stage.fetch(peer, served.url, { deadline: 20_000 }));
  expectRight(await Promise.all(answers), served);
});

test('parents that are killed one after the other', async () => {
  stage = await Stage.start({ peers: 5 });
  const served = stage.serveBlob(LENGTH, { bytesPerSecond: ORIGIN_RATE });
  const answers = stage.swarm.peers.map((peer) => stage.fetch(peer, served.url).catch(() => undefined));
  const [first, second, ...others] = stage.swarm.peers;
  await underway(stage, served, 0.3);
  await first?.kill();
  await underway(stage, served, 0.6);
  await second?.kill();
  const settled = await Promise.all(answers);
  for (const answer of settled) expectHonest(answer, served);
  expectRight(
    settled.slice(2).filter((answer) => answer !== undefined),
    served,
  );
  expect(settled.slice(2)).toHaveLength(others.length);
  expect(stage.origin.count(served.path).bytes / LENGTH).toBeLessThanOrEqual(1.02);
});

test('bits that flipped at rest on the seed reach nobody', async () => {
  stage = await Stage.start();
  const served = stage.serveBlob(LENGTH);
  expectRight([await stage.fetch(stage.swarm.seed, served.url)], served);
  flipBits(stage.swarm.seed, LENGTH);
  expectRight(await crowd(stage, served), served);
});

/** Changes a byte in each MiB of the store's file of this length. */
function flipBits(node: Node, length: number): void {
  const file = readdirSync(node.store, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .find((path) => statSync(path).size === length);
  if (file === undefined) throw new Error(`${node.name} has no file of ${length} bytes`);
  const descriptor = openSync(file, 'r+');
  const byte = Buffer.alloc(1);
  for (let at = 4321; at < length; at += MIB) {
    readSync(descriptor, byte, 0, 1, at);
    byte[0] = (byte[0] ?? 0) ^ 1;
    writeSync(descriptor, byte, 0, 1, at);
  }
  closeSync(descriptor);
}
