import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Content, installed, Scratch } from '@pantala/testkit';
import { whyNot } from '../e2e/judges/lib/installed.ts';
import { LazyStage } from '../e2e/lib/lazy-stage.ts';
import { spread } from './lib/figures.ts';
import { FilesystemWays, readingCommand, type Way } from './lib/filesystem-ways.ts';
import { idleMemory } from './lib/lazy-processes.ts';
import { copyMachineTree } from './lib/machine-tree.ts';
import { benchOptions, type Figure, type Row, report, say } from './lib/report.ts';
import { timed } from './lib/timed.ts';

/** B6: one tree, read by the same commands from every file system that can show it. */
const options = benchOptions({
  name: 'filesystem',
  what: `One tree as the disk's own file system has it, mkfs.erofs, the kernel with our bootstrap on decoded blobs, Pantala
with both drivers, and nydusd with a warm cache (scripts/judges installs it). Needs root, mkfs.erofs (erofs-utils), fio.`,
  own: {
    size: '600',
    random: '256',
    from: '/usr/share,/usr/lib/python3',
    work: join(tmpdir(), 'pantala-bench-filesystem'),
    reads: '16384',
    mounts: '10',
  },
  runs: 7,
});

const MIB = 1024 * 1024;
const FILES = { folder: 'bench', random: 'random', program: 'program', unread: 'unread' };
const LEAST_ENTRIES = 15_000;
/** One takes a tenth of a second. */
const WARM_PASSES = 5;
const MEASURES = {
  metadata: { title: 'find with stat, cold', unit: 'entries/s' },
  metadataWarm: { title: 'find with stat, warm', unit: 'entries/s' },
  reading: { title: 'open and read all, cold', unit: 'MB/s' },
  random1: { title: '4 KiB at random, cold, 1 job', unit: 'reads/s' },
  random4: { title: '4 KiB at random, cold, 4 jobs', unit: 'reads/s' },
  executing: { title: 'a program is started, cold', unit: '1/s' },
} as const;
type Measure = keyof typeof MEASURES;

const lacking = [
  ...(process.getuid?.() === 0 ? [] : ['root']),
  ...['mkfs.erofs', 'fio', 'find', 'xargs'].filter((name) => !installed(name)),
];
if (lacking.length > 0) {
  throw new Error(`needs ${lacking.join(', ')} (apt-get install erofs-utils fio findutils)`);
}
const tree = preparedTree();
const [entries, bytes] = [countEntries(tree), countBytes(tree)];
say(`${tree}: ${entries} entries, ${Math.round(bytes / MIB)} MiB`);
if (entries < LEAST_ENTRIES) say(`with less than ${LEAST_ENTRIES} entries the start of find counts too much`);

const rows: Row[] = [];
await using building = new LazyStage();
const image = await building.build(tree);
await using scratch = Scratch.create('filesystem');
await using ways = new FilesystemWays(image, scratch.path);
await ways.addErofs();
await ways.addKernel();
const complete = await ways.addLazy('fanotify');
await ways.addLazy('fuse');
await ways.addWatched(FILES.unread);
const noNydusd = whyNot('nydusd');
if (noNydusd === undefined) await ways.addNydusd(FILES.unread);
else say(`without nydusd: ${noNydusd}`);
const memory = await memoryFigures();
for (let run = 0; run < options.runs; run++) {
  // Nobody is always first after something.
  for (let at = 0; at < ways.ways.length; at++) await measure(run, ways.ways[(at + run) % ways.ways.length] as Way);
}
report('filesystem', options, [...figures(), ...memory], rows);

async function measure(run: number, way: Way): Promise<void> {
  const walk = ['find', way.path, '-fprintf', '/dev/null', '%s %m %T@ %p\n'];
  const random = join(way.path, FILES.folder, FILES.random);
  const program = join(way.path, FILES.folder, FILES.program);
  dropCaches();
  const metadata = entries / (await timed(walk)).seconds;
  let warm = 0;
  for (let pass = 0; pass < WARM_PASSES; pass++) warm += (await timed(walk)).seconds;
  const metadataWarm = (WARM_PASSES * entries) / warm;
  dropCaches();
  const reading = bytes / 1e6 / (await timed(readingCommand(way.path, FILES.unread))).seconds;
  const row: Readonly<Record<Measure, number>> = {
    metadata,
    metadataWarm,
    reading,
    random1: readsPerSecond(random, 1),
    random4: readsPerSecond(random, 4),
    executing: 1 / (await coldStart(program)),
  };
  rows.push({ run, way: way.name, ...row });
  const said = Object.entries(row).map(([key, value]) => `${key} ${value.toFixed(value < 10 ? 2 : 0)}`);
  say(`run ${run + 1}, ${way.name}: ${said.join(', ')}`);
}

async function coldStart(program: string): Promise<number> {
  dropCaches();
  return (await timed([program, '--print', '1'])).seconds;
}

/** Not more reads than the file has blocks: none is read twice. */
function readsPerSecond(file: string, jobs: number): number {
  dropCaches();
  const each = Math.floor(Number(options.own.reads) / jobs);
  const settings = [
    '--name=random',
    `--filename=${file}`,
    '--rw=randread',
    '--bs=4k',
    '--ioengine=psync',
    '--readonly',
  ];
  const amount = [`--numjobs=${jobs}`, `--number_ios=${each}`, '--group_reporting', '--output-format=json'];
  const output = JSON.parse(execFileSync('fio', [...settings, ...amount], { encoding: 'utf8' })) as {
    readonly jobs: readonly { readonly read: { readonly iops: number } }[];
  };
  return output.jobs[0]?.read.iops ?? Number.NaN;
}

function dropCaches(): void {
  execFileSync('sync');
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}

/** RssAnon when nothing happens: with one mount, with more, and of the worker that has fetched a whole image. */
async function memoryFigures(): Promise<Figure[]> {
  await using stage = new LazyStage();
  const { workerPid, guardianPid } = await stage.mount(image, 'mount', '--no-prefetch');
  const idle = () => idleMemory(workerPid, guardianPid, stage.places.stateDirectory);
  const one = await idle();
  const further = Number(options.own.mounts);
  for (let number = 0; number < further; number++) {
    await stage.mount(
      await stage.build(smallTree(stage.scratch.join(`tree-${number}`), number)),
      `mount-${number}`,
      '--no-prefetch',
    );
  }
  const many = await idle();
  const filled = await idleMemory(
    complete.line.workerPid,
    complete.line.guardianPid,
    complete.stage.places.stateDirectory,
  );
  const megabytes = (name: string, value: number, atMost?: number): Figure => ({
    name: `RssAnon: ${name}`,
    unit: 'MB',
    value: spread([value / 1e6]),
    ...(atMost === undefined ? {} : { aim: { atMost } }),
  });
  return [
    megabytes('guardian, idle', one.guardian, 25),
    megabytes('worker, idle', one.worker, 100),
    megabytes('each further mount', (many.worker - one.worker) / further, 0.3),
    megabytes('worker that has fetched everything, idle', filled.worker, 100),
    megabytes('worker that waits to take over', one.standby),
  ];
}

/** A few hundred files of its own. */
function smallTree(path: string, number: number): string {
  for (let folder = 0; folder < 20; folder++) {
    mkdirSync(join(path, `${folder}`), { recursive: true });
    for (let file = 0; file < 15; file++) {
      const content = new Content(1024 * (1 + ((file * 7) % 40)), `${number} ${folder} ${file}`);
      writeFileSync(join(path, `${folder}`, `${file}`), content.slice(0, content.length));
    }
  }
  return path;
}

function figures(): Figure[] {
  const names = ways.ways.map(({ name }) => name);
  const column = (way: string, measure: Measure) =>
    rows.filter((row) => row.way === way).map((row) => Number(row[measure]));
  const ratio = (a: string, b: string, measure: Measure, atLeast?: number): Figure[] => {
    if (!names.includes(a) || !names.includes(b)) return [];
    const below = column(b, measure);
    const value = spread(column(a, measure).map((each, run) => each / (below[run] ?? Number.NaN)));
    const name = `${MEASURES[measure].title}: ${a} ÷ ${b}`;
    return [{ name, unit: '', value, ...(atLeast === undefined ? {} : { aim: { atLeast } }) }];
  };
  const measures = Object.keys(MEASURES) as Measure[];
  return [
    ...measures.flatMap((each) => ratio('fanotify', 'kernel', each, 0.95)),
    ...ratio('fanotify', 'nydusd', 'metadata', 2.5),
    ...ratio('fanotify', 'nydusd', 'random1', 1.3),
    ...ratio('fanotify', 'nydusd', 'random4', 1.3),
    ...ratio('fanotify', 'nydusd', 'reading'),
    ...ratio('fuse', 'fanotify', 'metadata', 0.95),
    ...ratio('fuse', 'nydusd', 'random1', 0.8),
    ...ratio('fuse', 'nydusd', 'random4', 0.8),
    ...measures.flatMap((each) => ratio('fanotify', 'unpacked', each)),
    ...measures.flatMap((each) => ratio('fanotify', 'mkfs.erofs', each)),
    ...measures.flatMap((each) =>
      names.map((way) => ({
        name: `${MEASURES[each].title}: ${way}`,
        unit: MEASURES[each].unit,
        value: spread(column(way, each)),
      })),
    ),
  ];
}

/** Files of this machine, a program, and two files of incompressible bytes, one for random reads; made once. */
function preparedTree(): string {
  const { work, size, random, from } = options.own;
  const path = join(work, `tree-${size}-${random}`);
  if (existsSync(path)) return path;
  say(`copying ${size} MiB of ${from} into ${work}`);
  copyMachineTree(from.split(','), Number(size) * MIB, path, (making) => {
    const folder = join(making, FILES.folder);
    mkdirSync(folder);
    writeContent(join(folder, FILES.random), new Content(Number(random) * MIB, 'random reads'));
    writeContent(join(folder, FILES.unread), new Content(8 * MIB, 'never read'));
    copyFileSync(process.execPath, join(folder, FILES.program));
    chmodSync(join(folder, FILES.program), 0o755);
  });
  return path;
}

function writeContent(path: string, content: Content): void {
  rmSync(path, { force: true });
  for (const part of content.parts()) writeFileSync(path, part, { flag: 'a' });
}

function countEntries(path: string): number {
  return execFileSync('find', [path, '-printf', '.'], { encoding: 'latin1', maxBuffer: 1024 * MIB }).length;
}

function countBytes(path: string): number {
  const sizes = execFileSync('find', [path, '-type', 'f', '!', '-name', FILES.unread, '-printf', '%s\n'], {
    encoding: 'latin1',
    maxBuffer: 1024 * MIB,
  });
  return sizes.split('\n').reduce((sum, size) => sum + Number(size), 0);
}
