import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  installed,
  type Namespace,
  Network,
  type Node,
  pantala,
  Registry,
  run,
  Scratch,
  Swarm,
} from '@pantala/testkit';
import { judge, whyNot } from '../e2e/judges/lib/installed.ts';
import { type BuiltImage, LazyStage } from '../e2e/lib/lazy-stage.ts';
import { spread } from './lib/figures.ts';
import { untilIdle } from './lib/lazy-processes.ts';
import { MEMORY } from './lib/nginx.ts';
import { Nydusd } from './lib/nydusd.ts';
import { firstLine } from './lib/program-start.ts';
import { type PythonImage, pythonImage } from './lib/python-image.ts';
import { benchOptions, type Figure, type Row, report, say } from './lib/report.ts';

/** B5 and B3: from the mount to a program's first line, with a registry behind a narrow link. */
const options = benchOptions({
  name: 'cold-start',
  what: `An image with python3, from its mount to the first line of python3 -c 'print(1)': pulled and unpacked, nydusd,
Pantala alone and with peers; every link narrow. Needs root, docker-registry, curl; scripts/judges installs nydusd.`,
  own: {
    size: '600',
    megabits: '200',
    origin: '200',
    work: join(tmpdir(), 'pantala-bench-cold-start'),
    ways: 'pull,nydusd,alone,peers',
  },
  runs: 7,
});

const lacking = [
  ...(process.getuid?.() === 0 ? [] : ['root']),
  ...['docker-registry', 'curl', 'nsenter', 'ip', 'tc', 'ethtool'].filter((name) => !installed(name)),
];
if (lacking.length > 0) throw new Error(`needs ${lacking.join(', ')}`);
const groups = new Set(options.own.ways.split(','));
const noNydusd = whyNot('nydusd');
if (noNydusd !== undefined && groups.delete('nydusd')) say(`without nydusd: ${noNydusd}`);

const image: PythonImage = await pythonImage(options.own.work, Number(options.own.size));
const link = { megabits: Number(options.own.megabits) };
const rows: Row[] = [];
await using network = await Network.create();
const far = await network.addNode({ megabits: Number(options.own.origin) });
const control = await network.addNode();
const seedPlace = await network.addNode(link);
const near = await network.addNode(link);
await using scratch = Scratch.create('cold-start');
// Caches are dropped again and again: what the registry has lies in memory.
await using registry = await Registry.start({ place: far, parent: MEMORY });
const REPOSITORIES = { layers: 'python', nydus: 'python-nydus' };
const names = {
  layers: `${registry.host}/${REPOSITORIES.layers}:1`,
  nydus: `${registry.host}/${REPOSITORIES.nydus}:1`,
};
await copy(image.layers, names.layers);
await copy(image.nydus, names.nydus);
const tiny = await tinyImage();

/** What was measured: seconds until the first line, bytes and requests that the registry answered by then. */
interface Start {
  readonly seconds: number;
  readonly bytes: number;
  readonly requests: number;
}

for (let number = 0; number < options.runs; number++) {
  const row: Record<string, number> = { run: number };
  const take = (way: string, { seconds, bytes, requests }: Start): void => {
    Object.assign(row, { [way]: seconds, [`${way} MB`]: bytes / 1e6, [`${way} requests`]: requests });
    say(`run ${number + 1}, ${way}: ${seconds.toFixed(2)} s, ${(bytes / 1e6).toFixed(2)} MB in ${requests} requests`);
  };
  const unpacked = scratch.join(`unpacked-${number}`);
  const works: readonly [string, () => Promise<void>][] = [
    ['pull', async () => pullingRun(unpacked, take, row)],
    ['nydusd', async () => nydusdRun(take)],
    ['alone', async () => aloneRun(take, row)],
    ['peers', async () => peersRun(take)],
  ];
  // Nobody is always first after something.
  for (let at = 0; at < works.length; at++) {
    const [group, work] = works[(at + number) % works.length] as (typeof works)[number];
    if (groups.has(group)) await work();
  }
  rows.push(row);
}
report('cold-start', options, figures(), rows);
process.exit();

type Take = (way: string, start: Start) => void;

async function measured(work: () => Promise<void>): Promise<Start> {
  registry.resetCount();
  const began = performance.now();
  await work();
  const seconds = (performance.now() - began) / 1000;
  return { seconds, bytes: registry.bytesOut(), requests: registry.accesses().length };
}

/** All layers at once to files, then one after the other into a folder; then what starts there. */
async function pullingRun(unpacked: string, take: Take, row: Record<string, number>): Promise<void> {
  mkdirSync(unpacked);
  const layers = image.layerDigests.map((digest) => scratch.join(`${digest}.tar.gz`));
  const base = `${registry.url}/v2/${REPOSITORIES.layers}/blobs/sha256:`;
  const downloads = image.layerDigests.flatMap((digest, index) => ['-o', layers[index] as string, `${base}${digest}`]);
  dropCaches();
  take(
    'pull and unpack',
    await measured(async () => {
      await run('curl', ['-sS', '--fail', '--parallel', ...downloads], { place: near });
      for (const layer of layers) await run('tar', ['-xzf', layer, '-C', unpacked]);
      await firstLine(unpacked, process.pid);
    }),
  );
  dropCaches();
  take('unpacked, cold', await measured(() => firstLine(unpacked, process.pid)));
  row['unpacked, warm'] = (await measured(() => firstLine(unpacked, process.pid))).seconds;
  await run('rm', ['-rf', unpacked, ...layers]);
}

async function nydusdRun(take: Take): Promise<void> {
  const eager = { enable: true, threads_count: 8, merging_size: 1024 * 1024, prefetch_all: true };
  take('nydusd', await withNydusd(async () => image.bootstrap));
  take('nydusd, prefetch', await withNydusd(async () => image.bootstrap, eager));
  take('nydusd, bootstrap fetched', await withNydusd(fetchBootstrap));
}

async function withNydusd(
  findBootstrap: () => Promise<string>,
  prefetch: Readonly<Record<string, unknown>> = { enable: false },
): Promise<Start> {
  dropCaches();

  let mount: Nydusd | undefined;
  const start = await measured(async () => {
    mount = await Nydusd.start({ bootstrap: await findBootstrap(), backend: backend(), prefetch, place: near });
    await firstLine(mount.path, mount.program.pid);
  });
  await mount?.[Symbol.asyncDispose]();
  return start;
}

/** As a snapshotter does: manifest, then the layer with the bootstrap. */
async function fetchBootstrap(): Promise<string> {
  const folder = scratch.join('fetched');
  const script = `mkdir -p "$1" && curl -sS --fail -o /dev/null -H "accept: application/vnd.oci.image.manifest.v1+json" "$2/manifests/1" \
    && curl -sS --fail "$2/blobs/sha256:$3" | tar -xz -C "$1"`;
  const base = `${registry.url}/v2/${REPOSITORIES.nydus}`;
  await run('bash', ['-c', script, 'bash', folder, base, image.bootstrapDigest], { place: near });
  return join(folder, 'image', 'image.boot');
}

async function aloneRun(take: Take, row: Record<string, number>): Promise<void> {
  const config = scratch.join('nydusd.json');
  const settings = {
    device: { backend: backend(), cache: { type: 'blobcache' } },
    mode: 'direct',
    fs_prefetch: { enable: false },
  };
  writeFileSync(config, JSON.stringify(settings));
  const files = ['--bootstrap', image.bootstrap, '--config', config];
  const alone = ['--no-peer', '--plain-http', names.nydus];
  {
    await using stage = await readyStage();
    take('Pantala', await lazily(stage, files, '--no-prefetch'));
  }
  {
    await using stage = await readyStage();
    take('Pantala, image', await lazily(stage, alone, '--no-prefetch'));
  }
  {
    await using stage = await readyStage();
    take('Pantala, image, prefetch', await lazily(stage, alone));
  }
  {
    await using stage = new LazyStage(near);
    {
      // Programs are in memory, as everywhere else; nothing of this service is.
      await using _ = await readyStage();
    }
    take('Pantala, image, nothing runs', await lazily(stage, alone, '--no-prefetch'));
    await stage.umount('mount');
    await serve(stage);
    take('cache hit', await lazily(stage, alone, '--no-prefetch'));
    const { pid } = (await stage.serving()) ?? { pid: 0 };
    row['cache hit, warm'] = (await measured(() => firstLine(stage.scratch.join('mount'), pid))).seconds;
  }
}

async function peersRun(take: Take): Promise<void> {
  const withPeer = ({ socket }: Node) => ['--endpoint', socket, '--plain-http', names.nydus];
  {
    await using swarm = await startSwarm();
    {
      await using stage = await readyStage();
      take('peers, cold', await lazily(stage, withPeer(swarm.peer), '--no-prefetch'));
    }
    await fill(swarm.peer, near);
    await using stage = await readyStage();
    take('peers, local hit', await lazily(stage, withPeer(swarm.peer), '--no-prefetch'));
  }
  await using swarm = await startSwarm();
  await fill(swarm.seed, seedPlace);
  await using stage = await readyStage();
  take('peers, remote hit', await lazily(stage, withPeer(swarm.peer), '--no-prefetch'));
}

function startSwarm(): Promise<Swarm> {
  return Swarm.start({ scheduler: control, seeds: [seedPlace], peers: [near] });
}

/** Has a node fetch every blob of the image. */
async function fill({ proxy }: Node, place: Namespace): Promise<void> {
  for (const digest of image.blobDigests) {
    const url = `${proxy}/v2/${REPOSITORIES.nydus}/blobs/sha256:${digest}`;
    await run('curl', ['-sS', '--fail', '-o', '/dev/null', '-H', `x-dragonfly-registry: ${registry.url}`, url], {
      place,
    });
  }
}

/** A service that runs as on any node with lazy mounts, after the page cache was dropped. */
async function readyStage(): Promise<LazyStage> {
  const stage = new LazyStage(near);
  await serve(stage);
  return stage;
}

/** Has a service run and rest, the page cache dropped. */
async function serve(stage: LazyStage): Promise<void> {
  dropCaches();
  const { workerPid, guardianPid } = await stage.mount(tiny, 'tiny');
  await untilIdle(workerPid, guardianPid, stage.places.stateDirectory);
}

async function lazily(stage: LazyStage, source: readonly string[], ...more: readonly string[]): Promise<Start> {
  return measured(async () => {
    const { workerPid } = await stage.mountWith(source, 'mount', ...more);
    await firstLine(stage.scratch.join('mount'), workerPid);
  });
}

function backend(): Readonly<Record<string, unknown>> {
  return { type: 'registry', config: { scheme: 'http', host: registry.host, repo: REPOSITORIES.nydus } };
}

async function tinyImage(): Promise<BuiltImage> {
  const [tree, blobs, bootstrap] = [scratch.join('tiny'), scratch.join('tiny-blobs'), scratch.join('tiny.boot')];
  mkdirSync(tree);
  mkdirSync(blobs);
  writeFileSync(join(tree, 'file'), 'a service is here');
  await command('image', 'build', tree, '-B', bootstrap, '-D', blobs, '--no-progress');
  return { tree, bootstrap, blobs };
}

async function copy(from: string, to: string): Promise<void> {
  await command('image', 'copy', from, to, '--plain-http', '--no-progress');
}

async function command(...args: readonly string[]): Promise<void> {
  const program = await pantala(args);
  const { code } = await program.exited;
  if (code !== 0) throw new Error(`pantala ${args.join(' ')}:\n${program.tail()}`);
}

/** The programs that measure and are measured stay in memory: what is dropped is the image, wherever it is. */
function dropCaches(): void {
  execFileSync('sync');
  writeFileSync('/proc/sys/vm/drop_caches', '3');
  const programs = [
    'curl',
    'tar',
    'gzip',
    'nsenter',
    'chroot',
    'setpriv',
    ...(groups.has('nydusd') ? [judge('nydusd')] : []),
  ];
  for (const program of programs) execFileSync(program, ['--version']);
  execFileSync('ip', ['-V']);
}

function figures(): Figure[] {
  const column = (key: string) =>
    rows.map((row) => Number(row[key] ?? Number.NaN)).filter((value) => !Number.isNaN(value));
  const ratio = (name: string, a: string, b: string, atMost?: number): Figure[] => {
    const below = column(b);
    const values = column(a).map((each, index) => each / (below[index] ?? Number.NaN));
    if (values.length === 0 || below.length === 0) return [];
    return [{ name, unit: '', value: spread(values), ...(atMost === undefined ? {} : { aim: { atMost } }) }];
  };
  const plain = Object.keys(Object.assign({}, ...rows) as Row).filter((key) => key !== 'run');
  return [
    ...ratio('start ÷ nydusd', 'Pantala', 'nydusd', 0.7),
    ...ratio('bytes ÷ nydusd', 'Pantala MB', 'nydusd MB', 1),
    ...ratio('start with the bootstrap fetched ÷ nydusd', 'Pantala, image', 'nydusd, bootstrap fetched', 0.7),
    ...ratio('bytes with the bootstrap fetched ÷ nydusd', 'Pantala, image MB', 'nydusd, bootstrap fetched MB', 1),
    ...ratio('start with prefetching ÷ nydusd', 'Pantala, image, prefetch', 'nydusd, prefetch'),
    ...ratio('start ÷ pull and unpack', 'Pantala, image', 'pull and unpack', 0.08),
    ...ratio('start where no service runs ÷ pull and unpack', 'Pantala, image, nothing runs', 'pull and unpack'),
    ...ratio('peers, cold ÷ alone', 'peers, cold', 'Pantala, image', 1.02),
    ...ratio('remote hit ÷ alone', 'peers, remote hit', 'Pantala, image', 0.5),
    ...ratio('local hit ÷ cache hit', 'peers, local hit', 'cache hit', 1.2),
    ...ratio('cache hit ÷ unpacked, cold', 'cache hit', 'unpacked, cold'),
    ...ratio('program alone, warm ÷ unpacked, warm', 'cache hit, warm', 'unpacked, warm', 1.1),
    ...plain.map((key) => ({
      name: key,
      unit: key.endsWith('MB') ? '' : key.endsWith('requests') ? '' : 's',
      value: spread(column(key)),
    })),
  ];
}
