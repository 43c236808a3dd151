import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { judge, whyNot } from '../e2e/judges/lib/installed.ts';
import { spread } from './lib/figures.ts';
import { copyMachineTree } from './lib/machine-tree.ts';
import { benchOptions, type Figure, type Row, report, say } from './lib/report.ts';
import { type Timed, timed } from './lib/timed.ts';

/** A directory and a .tar.gz become Nydus images: beside nydus-image, which uses one core, in turn. */
const options = benchOptions({
  name: 'conversion',
  what: 'A tree of 1 GiB, as a directory and as a .tar.gz, becomes a Nydus image: Pantala beside nydus-image (scripts/judges installs it).',
  own: {
    size: '1024',
    from: '/usr',
    work: join(tmpdir(), 'pantala-bench-conversion'),
    sources: 'directory,targz',
    ways: 'none,zstd,lz4,lz4-npm',
  },
  runs: 5,
});

interface Way {
  readonly compressor: 'none' | 'zstd' | 'lz4_block';
  readonly lz4: 'system' | 'bundled';
  readonly aims: { readonly wall: number; readonly cpu: number; readonly size: number };
}

const USUAL = { wall: 1, cpu: 1.5, size: 1.01 };
const WAYS: Readonly<Record<string, Way>> = {
  none: { compressor: 'none', lz4: 'system', aims: USUAL },
  zstd: { compressor: 'zstd', lz4: 'system', aims: USUAL },
  lz4: { compressor: 'lz4_block', lz4: 'system', aims: USUAL },
  'lz4-npm': { compressor: 'lz4_block', lz4: 'bundled', aims: { wall: 1.2, cpu: 2.2, size: 1.08 } },
};
const TYPES = { directory: 'directory', targz: 'targz-rafs' } as const;
type Source = keyof typeof TYPES;

/** As `./pantala` starts its programs. */
const COMPILED = { NODE_COMPILE_CACHE: join(import.meta.dirname, '../node_modules/.cache/compile') };

const GIB = 1024 ** 3;
const MAX_RSS_ANON = 250;
const missing = whyNot('nydus-image');
if (missing !== undefined) throw new Error(missing);
const nydusImage = judge('nydus-image');
const corpus = prepared();
const bytes = Number(
  execFileSync('du', ['-s', '--apparent-size', '-B1', corpus.directory], { encoding: 'utf8' }).split('\t')[0],
);
const rows: Row[] = [];
for (let run = 0; run < options.runs; run++) {
  for (const source of options.own.sources.split(',') as Source[]) {
    for (const name of options.own.ways.split(',')) rows.push(await pair(run, source, name));
  }
}
report('conversion', options, figures(), rows);

async function pair(run: number, source: Source, name: string): Promise<Row> {
  const way = WAYS[name];
  if (way === undefined) throw new Error(`there is no way ${name}; there are ${Object.keys(WAYS).join(', ')}`);
  const path = corpus[source];
  const folders = { theirs: join(options.own.work, 'theirs'), ours: join(options.own.work, 'ours') };
  const theirs = () => {
    const { compressor } = way;
    mkdirSync(join(folders.theirs, 'blobs'), { recursive: true });
    const target = ['-B', join(folders.theirs, 'bootstrap'), '-D', join(folders.theirs, 'blobs')];
    return timed([nydusImage, 'create', '-t', TYPES[source], ...target, '--compressor', compressor, path]);
  };
  const ours = () => {
    mkdirSync(folders.ours, { recursive: true });
    const program = join(import.meta.dirname, 'lib/build-layer.ts');
    return timed([process.execPath, program, path, source, folders.ours, way.compressor, way.lz4], COMPILED);
  };
  const measured: { theirs?: Timed; ours?: Timed } = {};
  // Who comes second finds the disk busy with what the first has written: they take turns.
  const order = run % 2 === 0 ? (['theirs', 'ours'] as const) : (['ours', 'theirs'] as const);
  const sizes = { theirs: 0, ours: 0 };
  for (const who of order) {
    rmSync(folders[who], { recursive: true, force: true });
    measured[who] = await (who === 'theirs' ? theirs() : ours());
    sizes[who] = sizeOf(folders[who]);
    rmSync(folders[who], { recursive: true, force: true });
  }
  const [a, b] = [measured.theirs as Timed, measured.ours as Timed];
  const row = {
    run,
    source,
    way: name,
    wall: b.seconds / a.seconds,
    cpu: b.cpuSeconds / a.cpuSeconds,
    size: sizes.ours / sizes.theirs,
    rssAnon: b.peakRssAnon / 1e6,
    seconds: b.seconds,
    nydusSeconds: a.seconds,
    megabytesPerSecond: bytes / 1e6 / b.seconds,
    nydusMegabytesPerSecond: bytes / 1e6 / a.seconds,
    cpuPerGib: (b.cpuSeconds * GIB) / bytes,
    nydusCpuPerGib: (a.cpuSeconds * GIB) / bytes,
    nydusRssAnon: a.peakRssAnon / 1e6,
    megabytes: sizes.ours / 1e6,
  };
  say(
    `run ${run + 1}, ${source}, ${name}: wall ${row.wall.toFixed(2)}, CPU ${row.cpu.toFixed(2)}, ${row.rssAnon.toFixed(0)} MB`,
  );
  return row;
}

function figures(): Figure[] {
  return options.own.sources.split(',').flatMap((source) =>
    options.own.ways.split(',').flatMap((way) => {
      const of = (key: string) =>
        spread(rows.filter((row) => row.source === source && row.way === way).map((row) => Number(row[key])));
      const { aims } = WAYS[way] as Way;
      const title = `${source} to ${way}`;
      return [
        { name: `${title}: wall ÷ nydus-image`, unit: '', value: of('wall'), aim: { atMost: aims.wall } },
        { name: `${title}: CPU ÷ nydus-image`, unit: '', value: of('cpu'), aim: { atMost: aims.cpu } },
        { name: `${title}: size ÷ nydus-image`, unit: '', value: of('size'), aim: { atMost: aims.size } },
        { name: `${title}: peak RssAnon`, unit: 'MB', value: of('rssAnon'), aim: { atMost: MAX_RSS_ANON } },
        { name: `${title}: speed`, unit: 'MB/s', value: of('megabytesPerSecond') },
        { name: `${title}: speed of nydus-image`, unit: 'MB/s', value: of('nydusMegabytesPerSecond') },
        { name: `${title}: CPU`, unit: 's/GiB', value: of('cpuPerGib') },
        { name: `${title}: CPU of nydus-image`, unit: 's/GiB', value: of('nydusCpuPerGib') },
      ];
    }),
  );
}

/** Blob and bootstrap. */
function sizeOf(folder: string): number {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return files.reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}

/** The first files of a folder of this machine, in the order of their names, as many as wanted; made once. */
function prepared(): Readonly<Record<Source, string>> {
  const { work, from, size } = options.own;
  const made = { directory: join(work, `tree-${size}`), targz: join(work, `tree-${size}.tar.gz`) };
  if (existsSync(made.directory) && existsSync(made.targz)) return made;
  say(`copying ${size} MiB of ${from} into ${work}; this takes a few minutes`);
  copyMachineTree([from], Number(size) * 1024 * 1024, made.directory, (tree) => {
    execFileSync('tar', ['-C', tree, '-czf', made.targz, '.']);
  });
  return made;
}
