import { randomUUID } from 'node:crypto';
import { createClient, MessageQueue, pantalaV1, type Sent, schedulerV2 } from '@pantala/api';
import { hostId } from '@pantala/base';
import { Content, loopbackPlace, Swarm } from '@pantala/testkit';
import { curlSeconds } from './lib/fetch.ts';
import { spread } from './lib/figures.ts';
import { MEMORY, Nginx } from './lib/nginx.ts';
import { benchOptions, type Row, report, say } from './lib/report.ts';

/** Anonymous memory of every process: idle, busy with small and large files, and a scheduler with 100 peers. */
const options = benchOptions({
  name: 'memory',
  what: 'RssAnon and RSS of each process: idle, busy, and a scheduler with 100 peers; how soon a peer answers.',
  own: { size: '2048', peers: '100' },
  runs: 3,
});
const MB = 1e6;
const rows: Row[] = [];
for (let number = 0; number < options.runs; number++) rows.push(await oneRun(number));

const column = (key: string) => spread(rows.map((row) => Number(row[key])));
report(
  'memory',
  options,
  [
    { name: 'idle peer, RssAnon', unit: 'MB', value: column('idle'), aim: { atMost: 90 } },
    { name: 'idle peer, RSS', unit: 'MB', value: column('idleRss') },
    { name: 'busy peer, RssAnon', unit: 'MB', value: column('busy'), aim: { atMost: 230 } },
    { name: 'busy peer, RSS', unit: 'MB', value: column('busyRss') },
    { name: 'busy seed, RssAnon', unit: 'MB', value: column('busySeed'), aim: { atMost: 230 } },
    { name: 'scheduler with 100 peers, RssAnon', unit: 'MB', value: column('scheduler'), aim: { atMost: 130 } },
    { name: 'manager, RssAnon', unit: 'MB', value: column('manager') },
    { name: 'a peer answers after', unit: 's', value: column('start'), aim: { atMost: 1.5 } },
  ],
  rows,
);
process.exit();

async function oneRun(number: number): Promise<Row> {
  const place = loopbackPlace();
  await using origin = await Nginx.start(place, { counted: true });
  await using swarm = await Swarm.start({
    scheduler: loopbackPlace(),
    manager: loopbackPlace(),
    seeds: [loopbackPlace()],
    peers: [loopbackPlace()],
    parent: MEMORY,
  });
  const begun = performance.now();
  await swarm.peer.restart();
  const start = (performance.now() - begun) / 1000;
  const idle = swarm.peer.usage();
  const most = { peer: 0, peerRss: 0, seed: 0 };
  const sampling = setInterval(() => {
    most.peer = Math.max(most.peer, swarm.peer.usage().rssAnon);
    most.peerRss = Math.max(most.peerRss, swarm.peer.usage().rss);
    most.seed = Math.max(most.seed, swarm.seed.usage().rssAnon);
  }, 50);
  const name = randomUUID();
  const url = origin.addFile(name, new Content(Number(options.own.size) * 1024 * 1024, name));
  await curlSeconds(place, url, swarm.peer.proxy);
  await curlSeconds(place, url, swarm.peer.proxy);
  clearInterval(sampling);
  await using crowd = await announce(swarm.scheduler.place.address, Number(options.own.peers));
  const scheduler = swarm.scheduler.usage();
  const row = {
    run: number,
    start,
    idle: idle.rssAnon / MB,
    idleRss: idle.rss / MB,
    busy: most.peer / MB,
    busyRss: most.peerRss / MB,
    busySeed: most.seed / MB,
    scheduler: scheduler.rssAnon / MB,
    manager: (swarm.manager?.usage().rssAnon ?? 0) / MB,
    peers: crowd.count,
  };
  say(JSON.stringify(row));
  return row;
}

/** Peers as far as a scheduler knows them: each announced, with its conversation open. */
async function announce(host: string, count: number): Promise<AsyncDisposable & { readonly count: number }> {
  const stack = new AsyncDisposableStack();
  for (let number = 0; number < count; number++) {
    const ip = `127.99.1.${number}`;
    const hostname = `crowd${number}`;
    const id = hostId({ ip, hostname, seed: false });
    const client = stack.use(createClient(schedulerV2.Scheduler, { host, port: 8002 }));
    const talk = stack.use(createClient(pantalaV1.Scheduler, { host, port: 8002 }));
    await client.announceHost({ host: { id, ip, hostname, port: 4000, downloadPort: 4005, os: 'linux' } });
    const requests = new MessageQueue<Sent<typeof pantalaV1.ConverseRequestSchema>>();
    requests.push({ hostId: id, request: { case: 'heldTasks', value: { tasks: [], completeList: true } } });
    const answers = talk.converse(requests)[Symbol.asyncIterator]();
    await answers.next();
    stack.defer(() => {
      requests.end();
      void answers.return?.();
    });
  }
  return { count, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}
