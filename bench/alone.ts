import { randomUUID } from 'node:crypto';
import { Content, Network, Swarm } from '@pantala/testkit';
import { curlSeconds } from './lib/fetch.ts';
import { spread } from './lib/figures.ts';
import { MEMORY, Nginx } from './lib/nginx.ts';
import { benchOptions, type Figure, type Row, report, say } from './lib/report.ts';

/** B10: never worse than direct. One machine alone, all peers bad, the scheduler dead, tiny files. */
const options = benchOptions({
  name: 'alone',
  what: 'One node against a direct download on links of 200 Mbit/s: alone, with bad peers, with a dead scheduler or seed.',
  own: { size: '128', megabits: '200' },
  runs: 7,
});
const link = { megabits: Number(options.own.megabits) };
const SIZES = [64 * 1024, 1024 * 1024, Number(options.own.size) * 1024 * 1024];
/** Seconds: what one part that does not answer may cost. */
const TIMEOUT = 0.5;
/** Below this a direct download is so short that a ratio says nothing; milliseconds count instead. */
const SHORT = 0.1;
const SHORT_EXTRA = 0.005;

const rows: Row[] = [];
await using network = await Network.create();
// Wider than a node's link: a seed that fetches as well must not be what is measured.
const far = await network.addNode({ megabits: 4 * link.megabits });
const control = await network.addNode();
const near = await network.addNode(link);
await using origin = await Nginx.start(far, { counted: true });

await scenario('alone', 0, async () => Swarm.start({ scheduler: control, seeds: [], peers: [near], parent: MEMORY }));
await scenario('no scheduler', TIMEOUT, async () => {
  const swarm = await Swarm.start({ scheduler: control, seeds: [], peers: [near], parent: MEMORY });
  await swarm.scheduler.kill();
  return swarm;
});
await scenario('all peers bad', TIMEOUT, async () => {
  // The seed listens for pieces where nobody else can reach it: a parent is announced, and does not answer.
  const settings = { nodes: { seed1: { storage: { server: { ip: '127.0.0.1' } } } } };
  const bad = await network.addNode(link);
  return Swarm.start({ scheduler: control, seeds: [bad], peers: [near], parent: MEMORY, settings });
});
await scenario('seed silent', TIMEOUT, async () => {
  const silent = await network.addNode(link);
  const swarm = await Swarm.start({ scheduler: control, seeds: [silent], peers: [near], parent: MEMORY });
  // It has worked before it stops: a seed that was never in conversation is one of Dragonfly's to the scheduler.
  const first = origin.addFile('first', new Content(SIZES[0] ?? 0, 'first'));
  await curlSeconds(near, first, swarm.peer.proxy);
  swarm.seeds[0]?.program.signal('SIGSTOP');
  return swarm;
});
await scenario('scheduler silent', TIMEOUT, async () => {
  const swarm = await Swarm.start({ scheduler: control, seeds: [], peers: [near], parent: MEMORY });
  swarm.scheduler.program.signal('SIGSTOP');
  return swarm;
});
report('alone', options, figures(), rows);
process.exit();

async function scenario(name: string, allowance: number, start: () => Promise<Swarm>): Promise<void> {
  await using swarm = await start();
  for (let number = 0; number < options.runs; number++) {
    for (const size of SIZES) {
      const file = randomUUID();
      const url = origin.addFile(file, new Content(size, file));
      const rival = origin.addFile(`${file}-direct`, new Content(size, `${file}-direct`));
      const measure = { direct: 0, ours: 0 };
      for (const way of number % 2 === 0 ? (['direct', 'ours'] as const) : (['ours', 'direct'] as const)) {
        measure[way] =
          way === 'direct' ? await curlSeconds(near, rival) : await curlSeconds(near, url, swarm.peer.proxy);
      }
      origin.removeFile(file);
      origin.removeFile(`${file}-direct`);
      const row = { scenario: name, size, run: number, ...measure, allowance };
      rows.push(row);
      say(JSON.stringify(row));
    }
  }
}

function figures(): Figure[] {
  const keys = [...new Set(rows.map((row) => `${row.scenario}, ${row.size}`))];
  return keys.map((key) => {
    const own = rows.filter((row) => `${row.scenario}, ${row.size}` === key);
    const allowance = Number(own[0]?.allowance ?? 0);
    const short = own.every((row) => Number(row.direct) < SHORT);
    if (short) {
      const extra = spread(own.map((row) => 1000 * (Number(row.ours) - Number(row.direct))));
      return {
        name: `${key} bytes: ours - direct`,
        unit: 'ms',
        value: extra,
        aim: { atMost: 1000 * (SHORT_EXTRA + allowance) },
      };
    }
    const ratio = spread(own.map((row) => (Number(row.ours) - allowance) / Number(row.direct)));
    return { name: `${key} bytes: ours ÷ direct`, unit: '', value: ratio, aim: { atMost: 1.05 } };
  });
}
