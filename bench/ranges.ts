import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { Content, Network, type Node, type Place, run, Swarm } from '@pantala/testkit';
import { curlSeconds } from './lib/fetch.ts';
import { quantile, spread } from './lib/figures.ts';
import { MEMORY, Nginx } from './lib/nginx.ts';
import type { RangeResult, RangeTask } from './lib/range-client.ts';
import { benchOptions, type Figure, type Row, report, say } from './lib/report.ts';

/** B4: ranges at random offsets through the proxy: hits, misses, and misses that another peer can serve. */
const options = benchOptions({
  name: 'ranges',
  what: 'Range reads of 4 KiB, 128 KiB and 1 MiB through the proxy against a plain file server, links of 200 Mbit/s.',
  own: { size: '512', megabits: '200', requests: '150' },
  runs: 7,
});
const contentLength = Number(options.own.size) * 1024 * 1024;
const requests = Number(options.own.requests);
const LENGTHS = [4, 128, 1024].map((kibibytes) => kibibytes * 1024);
const PORTS = { proxy: 4001, nginx: 8080 };
const link = { megabits: Number(options.own.megabits) };

const rows: Row[] = [];
await using network = await Network.create();
const far = await network.addNode(link);
const control = await network.addNode();
const seed = await network.addNode(link);
const near = await network.addNode(link);
await using origin = await Nginx.start(far, { counted: true });
await using beside = await Nginx.start(near, { counted: false });
await using swarm = await Swarm.start({ scheduler: control, seeds: [seed], peers: [near], parent: MEMORY });

for (let number = 0; number < options.runs; number++) await oneRun(number);
report('ranges', options, figures(), rows);
process.exit();

async function oneRun(number: number): Promise<void> {
  const content = new Content(contentLength, randomUUID());
  const name = `sha256:${content.sha256}`;
  const [cold, onSeed, onPeer] = [`cold-${number}`, `seed-${number}`, `peer-${number}`];
  for (const prefix of [cold, onSeed, onPeer]) origin.addFile(prefix, new Content(contentLength, prefix + name));
  beside.addFile('local', content);
  await curlSeconds(seed, `${origin.url}/${onSeed}`, swarm.seed.proxy);
  await curlSeconds(near, `${origin.url}/${onPeer}`, swarm.peer.proxy);
  for (const [index, rangeLength] of LENGTHS.entries()) {
    const offsets = { rangeLength, seed: number * 10 + index };
    const row: Record<string, string | number> = { run: number, rangeLength };
    const take = (label: string, result: RangeResult): void => {
      row[`${label} p50`] = quantile(result.latencies, 0.5);
      row[`${label} p99`] = quantile(result.latencies, 0.99);
      if (result.failures > 0) say(`  ${label} of ${rangeLength}: ${result.failures} answers were wrong`);
    };
    take('direct', await ask(near, { ...direct(origin, cold), ...offsets }));
    origin.resetCount();
    take('miss', await ask(near, { ...through(swarm.peer, cold), ...offsets }));
    row.amplification = origin.count().bytes / (requests * rangeLength);
    origin.resetCount();
    take('remote', await ask(near, { ...through(swarm.peer, onSeed), ...offsets }));
    row.remoteOriginBytes = origin.count().bytes;
    take('nginx', await ask(near, { ...direct(beside, 'local'), ...offsets }));
    take('hit', await ask(near, { ...through(swarm.peer, onPeer), ...offsets }));
    for (const connections of [16, 1000]) {
      const many = { ...offsets, connections, requests: Math.max(2000, 4 * connections) };
      const rival = await ask(near, { ...direct(beside, 'local'), ...many });
      const ours = await ask(near, { ...through(swarm.peer, onPeer), ...many });
      row[`nginx ${connections} rps`] = rival.latencies.length / rival.seconds;
      row[`hit ${connections} rps`] = ours.latencies.length / ours.seconds;
      row[`hit ${connections} failures`] = ours.failures;
    }
    rows.push(row);
    say(
      Object.entries(row)
        .map(([key, value]) => `${key} ${typeof value === 'number' ? Number(value.toFixed(3)) : value}`)
        .join(', '),
    );
  }
  for (const prefix of [cold, onSeed, onPeer]) origin.removeFile(prefix);
}

function direct(server: Nginx, name: string): Omit<RangeTask, 'rangeLength' | 'seed'> {
  const url = new URL(server.url);
  return {
    host: url.hostname,
    port: PORTS.nginx,
    target: `/${name}`,
    authority: url.host,
    contentLength,
    requests,
    connections: 1,
  };
}

function through(node: Node, name: string): Omit<RangeTask, 'rangeLength' | 'seed'> {
  const proxy = new URL(node.proxy);
  return { ...direct(origin, name), host: proxy.hostname, port: PORTS.proxy, target: `${origin.url}/${name}` };
}

async function ask(place: Place, task: RangeTask): Promise<RangeResult> {
  const client = join(import.meta.dirname, 'lib', 'range-client.ts');
  const { stdout } = await run(process.execPath, [client, JSON.stringify(task)], { place });
  return JSON.parse(stdout) as RangeResult;
}

function figures(): Figure[] {
  const made: Figure[] = [];
  for (const length of LENGTHS) {
    const own = rows.filter((row) => row.rangeLength === length);
    const column = (key: string) => own.map((row) => Number(row[key]));
    const ratio = (a: string, b: string) => spread(own.map((row) => Number(row[a]) / Number(row[b])));
    const difference = (a: string, b: string) => spread(own.map((row) => Number(row[a]) - Number(row[b])));
    const size = `${length / 1024} KiB`;
    const amplification = length === 4096 ? 32 : length === 131_072 ? 1.5 : undefined;
    made.push(
      {
        name: `${size}: miss, asked of the origin`,
        unit: 'x',
        value: spread(column('amplification')),
        ...(amplification === undefined ? {} : { aim: { atMost: amplification } }),
      },
      {
        name: `${size}: miss p50 - direct`,
        unit: 'ms',
        value: difference('miss p50', 'direct p50'),
        aim: { atMost: 1.5 },
      },
      {
        name: `${size}: miss that the seed has, p50 - direct`,
        unit: 'ms',
        value: difference('remote p50', 'direct p50'),
        aim: { atMost: 1.5 },
      },
      {
        name: `${size}: bytes of the origin meanwhile`,
        unit: 'bytes',
        value: spread(column('remoteOriginBytes')),
        aim: { atMost: 64 },
      },
      { name: `${size}: hit p50 ÷ nginx`, unit: '', value: ratio('hit p50', 'nginx p50'), aim: { atMost: 1.7 } },
      { name: `${size}: hit p99 ÷ nginx`, unit: '', value: ratio('hit p99', 'nginx p99') },
      { name: `${size}: hit p50`, unit: 'ms', value: spread(column('hit p50')) },
      { name: `${size}: 16 connections, requests/s ÷ nginx`, unit: '', value: ratio('hit 16 rps', 'nginx 16 rps') },
      {
        name: `${size}: 1000 connections, requests/s ÷ nginx`,
        unit: '',
        value: ratio('hit 1000 rps', 'nginx 1000 rps'),
      },
    );
  }
  return made;
}
