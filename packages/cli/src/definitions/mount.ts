import { type Command, Option } from 'commander';
import { type ActionWrapper, collect, examples } from './options.ts';

/** `pantala mount`, `umount`, `mounts`: images that the kernel reads while they are still being fetched. */
export function mountCommands(program: Command, action: ActionWrapper): void {
  const directories = (command: Command): Command =>
    command
      .option('--state-dir <directory>', 'sockets and records of the worker; default /run/pantala/lazyfs')
      .option(
        '--cache-dir <directory>',
        'blobs and bootstraps, best on ext4, xfs or btrfs; default /var/lib/pantala/lazyfs',
      );

  directories(program.command('mount'))
    .description('Mounts a Nydus image; its bytes are fetched as they are read.')
    .argument('<names...>', 'an image in a registry, and the directory where it is mounted; it is made')
    .option('-B, --bootstrap <file>', "the image's bootstrap, instead of an image")
    .option('--bootstrap-digest <hex>', 'SHA-256 that the bootstrap must have')
    .option('-D, --blob-dir <directory>', 'folder with blobs, each under its id; may be repeated', collect, [])
    .option('-c, --config <file>', "nydusd's configuration, JSON or TOML: where the blobs of --bootstrap are")
    .option('--platform <platform>', "as linux/arm64; default: the image's only one, or this machine's")
    .option('--endpoint <path>', "the peer's unix socket; default: the one that is there")
    .option('--no-peer', 'ask the registry without the peer of this machine')
    .option('--plain-http', 'speak HTTP with the registry')
    .option('--insecure', "accept any certificate of the registry's")
    .addOption(
      new Option('--driver <name>', 'how the kernel is made to wait; default: what works').choices([
        'fanotify',
        'fuse',
      ]),
    )
    .option('--loop', 'give the kernel loop devices, as before Linux 6.12')
    .option('--no-prefetch', 'fetch only what is read; else the whole image follows in the background')
    .option('--prefetch-files <file>', 'paths in the image that are fetched first, a line each')
    .option('--trace', 'then show what is missed and where it comes from, until it is interrupted')
    .option('--json', 'print one line when it can be read')
    .addHelpText(
      'after',
      examples(
        'pantala mount registry.example.com/app:nydus /mnt/app',
        'pantala mount --bootstrap image.boot --blob-dir /srv/blobs /mnt/image',
        'pantala mount --bootstrap image.boot --config nydusd.json /mnt/image --driver fuse --json',
        'pantala mount registry.example.com/app:nydus /mnt/app --no-prefetch --trace',
      ),
    )
    .action(
      action('mount', async (names, options) => (await import('../commands/mount/mount.ts')).mount(names, options)),
    );

  directories(program.command('prefetch'))
    .description('Fetches what a lazy mount lacks; ends when it is there.')
    .argument('<directory>', 'where it is mounted')
    .option('--prefetch-files <file>', 'paths in the image, a line each, that are fetched first')
    .option('--only-files', 'nothing but these')
    .option('--json', 'print one line')
    .addHelpText(
      'after',
      examples('pantala prefetch /mnt/image', 'pantala prefetch /mnt/image --prefetch-files hot.txt --only-files'),
    )
    .action(
      action('prefetch', async (directory, options) =>
        (await import('../commands/mount/prefetch.ts')).prefetch(directory, options),
      ),
    );

  directories(program.command('umount'))
    .description('Takes a lazy mount away; what it has cached stays.')
    .argument('<directory>', 'where it is mounted')
    .option('--lazy', 'also while it is in use: whoever uses it goes on')
    .option('--json', 'print one line')
    .addHelpText('after', examples('pantala umount /mnt/image'))
    .action(
      action('umount', async (directory, options) =>
        (await import('../commands/mount/umount.ts')).umount(directory, options),
      ),
    );

  directories(program.command('mounts'))
    .description('Lists lazy mounts.')
    .option('--upgrade', 'first replace the worker by one of this version; mounts and their readers go on')
    .option('--json', 'print one line with all of them')
    .addHelpText('after', examples('pantala mounts', 'pantala mounts --json', 'pantala mounts --upgrade'))
    .action(action('mounts', async (options) => (await import('../commands/mount/mounts.ts')).mounts(options)));

  directories(program.command('worker'))
    .description('Runs the worker of lazy mounts in this process: in a container, or as a unit of systemd.')
    .option('--guardian <socket>', 'of a guardian on the host; without one the worker starts its own')
    .option('--verbose', 'write debug lines')
    .option('--json', 'print one line when it serves')
    .addHelpText(
      'after',
      `
SIGTERM ends it for good: mounts that nobody uses are taken away, those that are used are completed first. SIGUSR2 ends
it for the next one: mounts stay, and readers wait.
${examples('pantala worker', 'pantala worker --guardian /run/pantala/guardian/guardian.sock')}`,
    )
    .action(action('worker', async (options) => (await import('../commands/mount/serve-worker.ts')).worker(options)));

  program
    .command('guardian')
    .description('Holds, on the host, what makes readers wait while a worker in a container is gone.')
    .option('--socket <path>', 'where the worker reaches it; default /run/pantala/guardian/guardian.sock')
    .option('--json', 'print one line when it listens')
    .addHelpText('after', examples('pantala guardian', 'pantala guardian --socket /run/pantala/guardian/guardian.sock'))
    .action(action('guardian', async (options) => (await import('../commands/mount/guardian.ts')).guardian(options)));
}
