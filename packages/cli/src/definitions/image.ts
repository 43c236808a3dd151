import { type Command, Option } from 'commander';
import { type ActionWrapper, collect, examples, whole } from './options.ts';

/** `pantala image`: Nydus images (RAFS v6), read, checked, written and converted. */
export function imageCommands(program: Command, action: ActionWrapper): void {
  const image = program
    .command('image')
    .description('Nydus images: makes, converts, checks and reads them.')
    .addHelpText(
      'after',
      `
Images are references of registries (ghcr.io/a/b:1), OCI layouts (oci:FOLDER[:NAME], or the folder), archives
(oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], or the file). Credentials are those of docker login.`,
    );
  movingCommands(image, action);
  buildingCommands(image, action);
  readingCommands(image, action);
}

function accessOptions(command: Command): Command {
  return command
    .option('--plain-http', 'registries without TLS; those on loopback addresses are taken so unasked')
    .option('--insecure', 'registries with any certificate')
    .option('--concurrency <number>', 'layers or blobs at once', whole);
}

function movingCommands(image: Command, action: ActionWrapper): void {
  const convert = image
    .command('convert')
    .description('Makes a Nydus image of a container image, or one of those of a Nydus image.')
    .argument('<source>', 'the image')
    .argument('<target>', 'where the result goes')
    .addOption(
      new Option('--platform <platform>', 'os/architecture of an index; may be repeated')
        .argParser(collect)
        .default([], 'this machine'),
    )
    .option('--all-platforms', 'every platform of an index')
    .option('--merge-platform', "the target is an index with the source's images and their Nydus images")
    .option('--with-referrer', 'the Nydus image refers to its source, so that it is found from there')
    .option('--oci', "media types of OCI even where the source has Docker's")
    .option('--build-cache <image>', 'remembers layers that were converted, and uses them again')
    .option('--reverse', 'from a Nydus image to a container image with the same files')
    .option('--layer-compression <name>', 'of the layer that --reverse makes: gzip, zstd or none', 'gzip')
    .option('--work-dir <directory>', "for blobs that are not pushed yet; default: the system's temporary folder");
  prefetchOptions(blobOptions(accessOptions(convert), 'image'))
    .option('--no-progress', 'no progress line')
    .option('--json', 'print one line for each layer, and one with the result')
    .addHelpText(
      'after',
      examples(
        'pantala image convert ghcr.io/a/b:1 registry.example/b:1-nydus',
        'pantala image convert oci:layout oci:layout-nydus --compressor lz4_block --chunk-size 64KiB',
        'pantala image convert ghcr.io/a/b:1 registry.example/b:1 --all-platforms --merge-platform',
        'pantala image convert registry.example/b:1-nydus b.tar --reverse',
      ),
    )
    .action(
      action('image convert', async (source, target, options) =>
        (await import('../commands/image/convert.ts')).convert(source, target, options),
      ),
    );

  accessOptions(image.command('copy'))
    .description('Copies an image of any kind, byte by byte, with everything that an index names.')
    .argument('<source>', 'the image')
    .argument('<target>', 'where the copy goes')
    .option('--platform <platform>', 'only the image for this one')
    .option('--no-progress', 'no progress line')
    .option('--json', 'print one line')
    .addHelpText(
      'after',
      examples('pantala image copy ghcr.io/a/b:1-nydus oci:layout', 'pantala image copy b.tar registry.example/b:1'),
    )
    .action(
      action('image copy', async (source, target, options) =>
        (await import('../commands/image/copy.ts')).copy(source, target, options),
      ),
    );
}

/** How blobs are made. @param dictionary what `--chunk-dict` names */
function blobOptions(command: Command, dictionary: string): Command {
  return command
    .option('--compressor <name>', 'zstd, lz4_block or none', 'zstd')
    .option('--digester <name>', 'blake3 or sha256', 'blake3')
    .option('--chunk-size <size>', 'a power of two from 4KiB to 16MiB, also as 0x100000', '1MiB')
    .option('--batch-size <size>', 'files of less than half of it are compressed together; 0: none', '0')
    .option(`--chunk-dict <${dictionary}>`, 'chunks of this image are not stored again')
    .option('--threads <number>', 'threads that digest and compress, 1 to 8', whole);
}

const POLICIES = 'none; fs: files are named in the bootstrap; blob: their data comes first';

function prefetchOptions(command: Command, policies = POLICIES): Command {
  return command
    .option('--prefetch-policy <policy>', policies, 'none')
    .option('--prefetch-files <file>', 'paths and patterns, a line each; without it from stdin; none: everything');
}

const WHITEOUTS = ['--whiteout-spec <spec>', 'how layers remove files: oci, overlayfs or none', 'oci'] as const;

function buildingCommands(image: Command, action: ActionWrapper): void {
  const build = image
    .command('build')
    .description('Makes a bootstrap and a blob of a directory or a tar.')
    .argument('<source>', 'a directory, a tar (plain, gzip or zstd), or - for a tar on stdin')
    .option('-t, --type <type>', 'directory, tar or targz; nydus-image calls them dir-rafs, tar-rafs, targz-rafs')
    .option('-B, --bootstrap <file>', 'the bootstrap that is written')
    .requiredOption('-D, --blob-dir <directory>', 'where the blob goes, under its digest')
    .option('--blob-inline-meta', 'the bootstrap goes into the blob')
    .option('--features <features>', 'blob-toc: the blob ends with a table of contents')
    .option('--parent-bootstrap <file>', 'the layers below: the bootstrap shows them with the source on top')
    .option(...WHITEOUTS);
  prefetchOptions(blobOptions(build, 'bootstrap=file'))
    .option('-J, --output-json <file>', "the report, with nydus-image's keys")
    .option('--no-progress', 'no progress line')
    .option('--json', 'print the report as one line')
    .addHelpText(
      'after',
      examples(
        'pantala image build rootfs --bootstrap boot --blob-dir blobs',
        'pantala image build layer.tar.gz --type targz --compressor lz4_block -B boot -D blobs --json',
        'docker export c | pantala image build - --bootstrap boot --blob-dir blobs',
      ),
    )
    .action(
      action('image build', async (source, options) =>
        (await import('../commands/image/build.ts')).buildImage(source, options),
      ),
    );

  const merge = image
    .command('merge')
    .description('Makes one bootstrap of several layers: files that upper layers remove are gone.')
    .argument('<bootstrap...>', 'bootstraps, or blobs with one in them, the lowest first')
    .requiredOption('-B, --bootstrap <file>', 'the bootstrap that is written')
    .option('--parent-bootstrap <file>', 'layers below all others')
    .option(...WHITEOUTS)
    .option('--blob-digests <list>', "digest of each bootstrap's blob; needed for one that was taken out of its blob")
    .option('--blob-sizes <list>', 'bytes of each of these blobs')
    .option('--blob-toc-digests <list>', 'digest of the table of contents of each')
    .option('--blob-toc-sizes <list>', 'bytes of the table of contents of each');
  prefetchOptions(merge, 'none, or fs: files are named in the bootstrap')
    .option('-J, --output-json <file>', "the report, with nydus-image's keys")
    .option('--json', 'print the report as one line')
    .addHelpText(
      'after',
      examples(
        'pantala image merge layer1.boot layer2.boot --bootstrap merged',
        'pantala image merge blobs/9a48… blobs/cce6… --bootstrap merged --json',
      ),
    )
    .action(
      action('image merge', async (sources, options) =>
        (await import('../commands/image/merge.ts')).mergeImages(sources, options),
      ),
    );
}

/** Says which image is meant: an argument, or a bootstrap with the folder of its blobs. */
function reading(command: Command): Command {
  return command
    .argument('[image]', 'a bootstrap, a blob with one in it, or an image: see pantala image --help')
    .option('-B, --bootstrap <file>', 'the bootstrap, instead of an argument')
    .option('-D, --blob-dir <directory>', 'where the blobs lie, under their ids; without it, where the bootstrap lies')
    .option('--platform <platform>', 'os/architecture of an image that has several')
    .option('--plain-http', 'registries without TLS; those on loopback addresses are taken so unasked')
    .option('--insecure', 'registries with any certificate');
}

function readingCommands(image: Command, action: ActionWrapper): void {
  reading(image.command('check'))
    .description(
      'Checks blobs and every chunk against its digest; with a source, every file. Status 76 when it finds something.',
    )
    .option('--against <source>', 'a directory, a tar or an image; each difference is a line')
    .option('--threads <number>', 'threads that decode, 1 to 8', whole)
    .option('--no-progress', 'no progress line')
    .option('--json', 'print one line for each finding, and one with the sum')
    .addHelpText(
      'after',
      examples(
        'pantala image check --bootstrap boot --blob-dir blobs',
        'pantala image check --bootstrap boot --blob-dir blobs --against rootfs/',
        'pantala image check boot -D blobs --against layer.tar.gz --json',
      ),
    )
    .action(
      action('image check', async (path, options) =>
        (await import('../commands/image/check.ts')).checkImage(path, options),
      ),
    );

  reading(image.command('inspect'))
    .description('Lists what is in an image: as ls -l does, or its blobs, or its prefetch table.')
    .addOption(
      new Option('--path <path>', 'only this entry and what is below it; may be repeated')
        .argParser(collect)
        .default([], 'everything'),
    )
    .option('--chunks', 'with the chunks of each file')
    .option('--blobs', 'the blobs instead of the files')
    .option('--prefetch', 'only what the prefetch table names, in its order')
    .option('--json', 'print one line for each entry')
    .addHelpText(
      'after',
      examples(
        'pantala image inspect --bootstrap boot',
        'pantala image inspect boot --path /etc/passwd --chunks',
        'pantala image inspect boot --blobs --json',
      ),
    )
    .action(
      action('image inspect', async (path, options) =>
        (await import('../commands/image/inspect.ts')).inspectImage(path, options),
      ),
    );

  reading(image.command('stat'))
    .description('Sizes, repeated chunks, and what a lazy start fetches.')
    .option('-T, --target <image>', 'another image: how many chunks the two share')
    .option('--json', 'print one line')
    .addHelpText(
      'after',
      examples('pantala image stat --bootstrap boot', 'pantala image stat boot --target older-boot --json'),
    )
    .action(
      action('image stat', async (path, options) =>
        (await import('../commands/image/stat.ts')).statImage(path, options),
      ),
    );

  reading(image.command('unpack'))
    .description('Writes the tree of an image into a directory or a tar. Says what this user could not restore.')
    .requiredOption('-O, --output <path>', 'a new or empty directory, a FILE.tar, or - for a tar on stdout')
    .option('--overwrite', 'replace a tar that is there')
    .option('--no-progress', 'no progress line')
    .option('--json', 'print one line with counts and what was not restored')
    .addHelpText(
      'after',
      examples(
        'pantala image unpack --bootstrap boot --blob-dir blobs --output rootfs',
        'pantala image unpack boot -D blobs --output rootfs.tar',
        'pantala image unpack boot -D blobs --output - | tar t',
      ),
    )
    .action(
      action('image unpack', async (path, options) =>
        (await import('../commands/image/unpack.ts')).unpackImage(path, options),
      ),
    );

  reading(image.command('export'))
    .description('Decodes an image for the kernel: into one disk image, or into a device for each blob.')
    .option('--block', 'one file that mounts as EROFS without any device')
    .option('--devices', 'a directory with the files that mount-plan names')
    .requiredOption('-O, --output <path>', 'the disk image, or the directory')
    .option('--threads <number>', 'threads that decode, 1 to 8', whole)
    .option('--overwrite', 'replace a disk image that is there')
    .option('--no-progress', 'no progress line')
    .option('--json', 'print one line')
    .addHelpText(
      'after',
      examples(
        'pantala image export boot -D blobs --block --output disk.img',
        'pantala image export boot -D blobs --devices --output cache',
      ),
    )
    .action(
      action('image export', async (path, options) =>
        (await import('../commands/image/export.ts')).exportImage(path, options),
      ),
    );

  reading(image.command('mount-plan'))
    .description('Prints as JSON what a mount by the kernel needs: bootstrap, devices in order, options.')
    .requiredOption('--cache-dir <directory>', 'where decoded blobs lie or will lie')
    .option('--json', 'as it is in any case')
    .addHelpText('after', examples('pantala image mount-plan boot -D blobs --cache-dir /var/lib/pantala/cache'))
    .action(
      action('image mount-plan', async (path, options) =>
        (await import('../commands/image/mount-plan.ts')).planMount(path, options),
      ),
    );
}
