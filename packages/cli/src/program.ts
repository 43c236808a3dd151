import { ERROR_SURFACES } from '@pantala/base';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { defaultEndpoint } from './endpoint.ts';
import { printError } from './output.ts';

const VERSION = '0.1.0';

const EXIT_STATUSES = `
Exit status: 0 done; 64 wrong usage; 66 not there; 69 somebody does not answer; 73 exists already; 74 disk full;
75 too slow or too much; 76 wrong bytes; 77 not allowed; 78 wrong configuration; 130 interrupted.`;

/** Exit status of a command line that cannot be understood. */
const USAGE_EXIT = ERROR_SURFACES['invalid-argument'].exit;

/**
 * Runs the command line. What a command needs is loaded only when that command runs: `--help` and `get` start without
 * the servers.
 *
 * @returns the exit status
 */
export async function run(args: readonly string[]): Promise<number> {
  let status = 0;
  const program = new Command('pantala')
    .description('Container images and large files to many machines at once.')
    .version(VERSION)
    .exitOverride()
    .addHelpText('after', EXIT_STATUSES);

  /** Runs a command's action; its name stands in messages. */
  const action =
    <A extends unknown[]>(name: string, body: (...args: A) => Promise<number>) =>
    async (...given: A): Promise<void> => {
      try {
        status = await body(...given);
      } catch (error) {
        const options = given.find((each): each is A[number] & { json: unknown } => hasJson(each));
        status = printError(name, error, options?.json === true);
      }
    };

  for (const role of ['manager', 'scheduler', 'peer'] as const) {
    const command = program
      .command(role)
      .description(ROLE_DESCRIPTIONS[role])
      .option('-c, --config <file>', `upstream's ${ROLE_FILES[role]}; without one, defaults`)
      .option('--log-dir <directory>', "directory of this program's log files; upstream's below /var/log/dragonfly")
      .option('--verbose', 'write debug lines')
      .option('--console', 'write the log to stderr as well')
      .option('--json', 'print one line with the addresses when it answers')
      .addOption(new Option('--supervised <file>', 'compiled options of a supervising program').hideHelp());
    if (role !== 'manager') {
      command.option('--dynconfig <file>', `upstream's dynconfig.yaml, for a ${role} without a manager`);
    }
    command
      .addHelpText(
        'after',
        examples(`pantala ${role} --config /etc/dragonfly/${ROLE_FILES[role]}`, `pantala ${role} --json`),
      )
      .action(action(role, async (options) => (await import('./commands/serve.ts')).serve(role, options)));
  }

  program
    .command('up')
    .description('Runs manager, scheduler, a seed and peers on this machine until SIGTERM.')
    .option('-f, --file <file>', 'values of a Dragonfly chart; each setting that can have an effect here has it')
    .option('--dir <directory>', 'keep everything below this directory and touch nothing outside')
    .option('--peers <number>', 'peers beside the seed', whole, 1)
    .option('--json', 'print one line with all addresses when everything answers')
    .addHelpText(
      'after',
      examples('pantala up', 'pantala up --dir /tmp/swarm --peers 3 --json', 'pantala up -f chart-config.yaml'),
    )
    .action(action('up', async (options) => (await import('./commands/up.ts')).up(options)));

  program
    .command('get')
    .description('Downloads a file through the peer on this machine.')
    .argument('<url>', 'http or https')
    .requiredOption('-O, --output <path>', 'where the file is put')
    .option(...endpoint)
    .option('--digest <digest>', 'sha256:<hex> or sha512:<hex> that the content must have')
    .option('-H, --header <header>', 'header for the origin, as "Name: value"; may be repeated', collect, [])
    .option('--tag <tag>', 'keeps the content apart from the same URL with another tag')
    .option('--application <name>', 'keeps the content apart like a tag')
    .option('-p, --priority <level>', 'from 0 (most important) to 6', whole, 6)
    .option(
      '--filtered-query-param <name>',
      'query parameter that does not tell contents apart; may be repeated',
      collect,
      [],
    )
    .option('--piece-length <size>', 'as 4MiB; a power of two is best')
    .option('--content-for-calculating-task-id <text>', 'names the content instead of its URL')
    .option('--disable-back-to-source', 'never ask the origin from here')
    .option('--transfer-from-dfdaemon', 'receive the bytes instead of having the peer write the file')
    .option('--force-hard-link', "fail unless the file can be a hard link into the peer's store")
    .option('--overwrite', 'replace a file that is there')
    .option('--timeout <duration>', 'as 2h or 30s', '2h')
    .option('--no-progress', 'no progress bar')
    .option('--json', 'print one line with bytes, seconds and where the bytes came from')
    .addHelpText(
      'after',
      examples(
        'pantala get https://example.com/model.bin -O /data/model.bin',
        'pantala get https://example.com/a.iso -O a.iso --digest sha256:… --json',
        'pantala get -e /tmp/swarm/run/daemon.sock http://127.0.0.1:8080/f -O f --disable-back-to-source',
      ),
    )
    .action(action('get', async (url, options) => (await import('./commands/get.ts')).get(url, options)));

  const init = program.command('init').description('Makes other programs of this machine use the peer.');
  init
    .command('containerd')
    .description('Makes containerd pull through the peer, by hosts.toml files; can be taken back exactly.')
    .option('-r, --registry <url>', 'a registry, as https://ghcr.io; may be repeated', collect, [])
    .option('--all-registries', 'every registry that has no hosts.toml of its own')
    .option('--proxy <url>', "the peer's proxy", 'http://127.0.0.1:4001')
    .option('--config <file>', "containerd's configuration", '/etc/containerd/config.toml')
    .option('--certs-dir <directory>', 'directory of hosts.toml files; what the configuration names, else beside it')
    .option('--inject-config-path', 'make the configuration name that directory where it does not')
    .option('--replace', 'move hand-written hosts.toml files aside; --undo brings them back')
    .option('--restart', 'restart containerd when its configuration has changed')
    .option('--undo', 'take back everything that was written')
    .option('--json', 'print one line with what was done')
    .addHelpText(
      'after',
      examples(
        'pantala init containerd --registry https://ghcr.io --registry https://quay.io --inject-config-path --restart',
        'pantala init containerd --all-registries',
        'pantala init containerd --undo',
      ),
    )
    .action(
      action('init containerd', async (options) =>
        (await import('./commands/init-containerd.ts')).initContainerd(options),
      ),
    );

  program
    .command('doctor')
    .description('What this machine can do, what is wrong, and what to do about it.')
    .option('-c, --config <file>', "a peer's dfdaemon.yaml, for its ports and paths")
    .option('--containerd-config <file>', "containerd's configuration", '/etc/containerd/config.toml')
    .option('--json', 'print one line with every check')
    .addHelpText('after', examples('pantala doctor', 'pantala doctor --config /etc/dragonfly/dfdaemon.yaml --json'))
    .action(action('doctor', async (options) => (await import('./commands/doctor.ts')).doctor(options)));

  const task = program.command('task').description("What the peer's store holds.");
  task
    .command('ls')
    .description('Lists tasks.')
    .option(...endpoint)
    .option('--json', 'print one line for each task')
    .addHelpText('after', examples('pantala task ls', 'pantala task ls --json'))
    .action(action('task ls', async (options) => (await import('./commands/task.ts')).listTasks(options)));
  task
    .command('stat')
    .description('Shows what is held of a task.')
    .argument('<id>', 'task id')
    .option(...endpoint)
    .option('--sha256', 'read the whole content and compute its digest')
    .option('--json', 'print one line, with the runs of blocks that are held')
    .addHelpText('after', examples('pantala task stat 0123…ef', 'pantala task stat 0123…ef --sha256 --json'))
    .action(action('task stat', async (id, options) => (await import('./commands/task.ts')).statTask(id, options)));
  task
    .command('rm')
    .description('Removes a task from the store.')
    .argument('<id>', 'task id')
    .option(...endpoint)
    .option('--json', 'print one line')
    .addHelpText('after', examples('pantala task rm 0123…ef'))
    .action(action('task rm', async (id, options) => (await import('./commands/task.ts')).removeTask(id, options)));

  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    // Commander has said on stderr what it does not understand; help and version are no errors.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE_EXIT;
    throw error;
  }
  return status;
}

const endpoint = ['-e, --endpoint <path>', "the peer's unix socket", defaultEndpoint()] as const;

const ROLE_FILES = { manager: 'manager.yaml', scheduler: 'scheduler.yaml', peer: 'dfdaemon.yaml' } as const;

const ROLE_DESCRIPTIONS = {
  manager: 'Runs a manager: clusters, and where their schedulers are.',
  scheduler: 'Runs a scheduler: decides who serves whom.',
  peer: "Runs a peer: proxy, store, uploads. A seed when its file says so. Reads both generations' files.",
} as const;

function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ ${line}`).join('\n')}`;
}

function collect(value: string, earlier: readonly string[]): string[] {
  return [...earlier, value];
}

function whole(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError('A whole number is expected.');
  return Number(text);
}

function hasJson(value: unknown): value is { json: unknown } {
  return typeof value === 'object' && value !== null && 'json' in value;
}
