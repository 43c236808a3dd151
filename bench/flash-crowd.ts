import { randomUUID } from 'node:crypto';
import { Content, calibrate, Network, run, Swarm } from '@pantala/testkit';
import { curlSeconds } from './lib/fetch.ts';
import { fairness, quantile, spread } from './lib/figures.ts';
import { MEMORY, Nginx } from './lib/nginx.ts';
import { Meter } from './lib/processes.ts';
import { benchOptions, type Figure, type Row, report, say } from './lib/report.ts';

/** B1: peers on equal links ask for the same cold file at once. */
const options = benchOptions({
  name: 'flash-crowd',
  what: 'N peers and a seed on equal links ask for one cold file at once; time against the lower bound F/u.',
  own: { peers: '1,6', megabits: '200', size: '256' },
  runs: 7,
});
const size = Number(options.own.size) * 1024 * 1024;
const rows: Row[] = [];
const figures: Figure[] = [];

for (const count of options.own.peers.split(',').map(Number)) await measure(count);
report('flash-crowd', options, figures, rows);
process.exit();

async function measure(count: number): Promise<void> {
  await using network = await Network.create();
  const link = { megabits: Number(options.own.megabits) };
  const place = await network.addNode(link);
  const control = await network.addNode();
  const seed = await network.addNode(link);
  const first = await network.addNode(link);
  const peers = [first];
  for (let number = 1; number < count; number++) peers.push(await network.addNode(link));
  const achieved = await calibrate(place, seed);
  say(`${count} peers: a link of ${link.megabits} Mbit/s carries ${achieved.toFixed(1)} Mbit/s of payload`);
  await using origin = await Nginx.start(place, { counted: true });
  await using swarm = await Swarm.start({ scheduler: control, seeds: [seed], peers, parent: MEMORY });
  const bound = (size * 8) / (link.megabits * 1e6);
  const meter = new Meter(swarm.roles);
  const own: Row[] = [];

  for (let number = 0; number < options.runs; number++) {
    const name = `${randomUUID()}.bin`;
    const content = new Content(size, name);
    const url = origin.addFile(name, content);
    const direct = await curlSeconds(first, url);
    origin.resetCount();
    const before = peers.map((peer) => network.count(peer).sent);
    const seedBefore = network.count(seed).sent;
    meter.reset();
    const seconds = await Promise.all(swarm.peers.map((peer) => curlSeconds(peer.place, url, peer.proxy)));
    const cpu = meter.cpu();
    const uploads = peers.map((peer, index) => network.count(peer).sent - (before[index] ?? 0));
    const row = {
      peers: count,
      run: number,
      bound,
      direct,
      median: quantile(seconds, 0.5),
      last: Math.max(...seconds),
      copies: origin.count().bytes / size,
      fairness: fairness(uploads),
      seedCopies: (network.count(seed).sent - seedBefore) / size,
      cpuPerGiB: (cpu.total / (size * count)) * 2 ** 30,
      machineBusy: meter.machineBusy(),
    };
    own.push(row);
    say(
      `  run ${number}: direct ${direct.toFixed(2)} s, median ${row.median.toFixed(2)} s, last ${row.last.toFixed(2)} s (${(row.last / bound).toFixed(2)} of the bound), copies ${row.copies.toFixed(3)}, seed sent ${row.seedCopies.toFixed(2)}, peers sent ${uploads.map((bytes) => (bytes / size).toFixed(2)).join(' ')}, machine ${(100 * row.machineBusy).toFixed(0)} % busy`,
    );
    say(`    CPU s ${JSON.stringify(cpu.each)}`);
    await check(url, content, swarm);
    origin.removeFile(name);
  }
  say(`  memory ${JSON.stringify(meter.memory())}`);
  rows.push(...own);
  const column = (key: keyof (typeof own)[number]): number[] => own.map((row) => Number(row[key]));
  const ofBound = (key: 'median' | 'last' | 'direct') => spread(column(key).map((seconds) => seconds / bound));
  figures.push(
    { name: `${count} peers: direct, one node ÷ bound`, unit: '', value: ofBound('direct') },
    {
      name: `${count} peers: median ÷ bound`,
      unit: '',
      value: ofBound('median'),
      aim: { atMost: count === 1 ? 1.1 : 1.3 },
    },
    {
      name: `${count} peers: last ÷ bound`,
      unit: '',
      value: ofBound('last'),
      aim: { atMost: count === 1 ? 1.1 : 1.5 },
    },
    { name: `${count} peers: origin copies`, unit: '', value: spread(column('copies')), aim: { atMost: 1.02 } },
    { name: `${count} peers: fairness of uploads`, unit: '(Jain)', value: spread(column('fairness')) },
    { name: `${count} peers: CPU`, unit: 's/GiB delivered', value: spread(column('cpuPerGiB')) },
    { name: `${count} peers: machine busy`, unit: '', value: spread(column('machineBusy')) },
  );
}

/** Outside the measured time: what each peer now has is what the origin has. */
async function check(url: string, content: Content, swarm: Swarm): Promise<void> {
  for (const peer of swarm.peers) {
    const { stdout } = await run('bash', ['-c', `curl -sS --fail --proxy ${peer.proxy} ${url} | sha256sum`], {
      place: peer.place,
    });
    if (!stdout.startsWith(content.sha256)) throw new Error(`${peer.name} has wrong bytes of ${url}`);
  }
}
