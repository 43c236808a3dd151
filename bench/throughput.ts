import { randomUUID } from 'node:crypto';
import { Content, loopbackPlace, Swarm } from '@pantala/testkit';
import { curlSeconds } from './lib/fetch.ts';
import { spread } from './lib/figures.ts';
import { MEMORY, Nginx } from './lib/nginx.ts';
import { Meter } from './lib/processes.ts';
import { benchOptions, type Row, report, say } from './lib/report.ts';

/** One large file over loopback, unshaped: the seed to one peer, the origin to one peer, and a peer that has it. */
const options = benchOptions({
  name: 'throughput',
  what: 'One file of 1 GiB on loopback: nginx direct, seed to peer, origin to peer, complete on the peer.',
  own: { size: '1024' },
  runs: 7,
});
const size = Number(options.own.size) * 1024 * 1024;
const place = loopbackPlace();
await using origin = await Nginx.start(place, { counted: true });
const rows: Row[] = [];
for (let number = 0; number < options.runs; number++) rows.push(await oneRun(number));

const ratio = (key: string) => spread(rows.map((row) => Number(row.nginx) / Number(row[key])));
const rate = (key: string) => spread(rows.map((row) => size / 1e6 / Number(row[key])));
const column = (key: string) => spread(rows.map((row) => Number(row[key])));
report(
  'throughput',
  options,
  [
    { name: 'nginx direct', unit: 'MB/s', value: rate('nginx') },
    { name: 'seed to peer, through its proxy', unit: 'MB/s', value: rate('fromSeed') },
    { name: 'seed to peer ÷ nginx direct', unit: '', value: ratio('fromSeed'), aim: { atLeast: 0.3 } },
    { name: 'seed to peer, all processes', unit: 'CPU s/GiB', value: column('fromSeedCpu'), aim: { atMost: 3 } },
    { name: 'seed to peer, from the origin', unit: 'copies', value: column('fromSeedCopies'), aim: { atMost: 0.001 } },
    { name: 'origin to peer, cold ÷ nginx direct', unit: '', value: ratio('fromOrigin') },
    { name: 'origin to peer, cold, all processes', unit: 'CPU s/GiB', value: column('fromOriginCpu') },
    { name: 'complete on the peer', unit: 'MB/s', value: rate('local') },
    { name: 'complete on the peer ÷ nginx direct', unit: '', value: ratio('local'), aim: { atLeast: 1 } },
    { name: 'complete on the peer, all processes', unit: 'CPU s/GiB', value: column('localCpu') },
  ],
  rows,
);
process.exit();

async function oneRun(number: number): Promise<Row> {
  // A new swarm each time: nothing of the last run is in memory, and memory does not fill up.
  await using swarm = await Swarm.start({
    scheduler: loopbackPlace(),
    seeds: [loopbackPlace()],
    peers: [loopbackPlace()],
    parent: MEMORY,
  });
  const name = randomUUID();
  const url = origin.addFile(name, new Content(size, name));
  const meter = new Meter(swarm.roles);
  const measure = async (proxy?: string): Promise<{ seconds: number; cpu: number; copies: number; each: string }> => {
    origin.resetCount();
    meter.reset();
    const seconds = await curlSeconds(place, url, proxy);
    const { total, each } = meter.cpu();
    return { seconds, cpu: (total / size) * 2 ** 30, copies: origin.count().bytes / size, each: JSON.stringify(each) };
  };
  const nginx = await measure();
  const fromOrigin = await measure(swarm.seed.proxy);
  const fromSeed = await measure(swarm.peer.proxy);
  const nginxAgain = await measure();
  const local = await measure(swarm.peer.proxy);
  const localAgain = await measure(swarm.peer.proxy);
  origin.removeFile(name);
  const row = {
    run: number,
    nginx: (nginx.seconds + nginxAgain.seconds) / 2,
    fromOrigin: fromOrigin.seconds,
    fromOriginCpu: fromOrigin.cpu,
    fromSeed: fromSeed.seconds,
    fromSeedCpu: fromSeed.cpu,
    fromSeedCopies: fromSeed.copies,
    local: (local.seconds + localAgain.seconds) / 2,
    localCpu: localAgain.cpu,
  };
  say(`run ${number}: ${JSON.stringify(row)}`);
  say(`  CPU s: from the origin ${fromOrigin.each}, from the seed ${fromSeed.each}, local ${localAgain.each}`);
  say(`  memory ${JSON.stringify(meter.memory())}`);
  return row;
}
