import type { Command } from 'commander';
import { type ActionWrapper, collect, examples } from './options.ts';

/** `pantala init` and `pantala doctor`: this machine and its other programs. */
export function machineCommands(program: Command, action: ActionWrapper): void {
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
        (await import('../commands/init-containerd.ts')).initContainerd(options),
      ),
    );

  program
    .command('doctor')
    .description('What this machine can do, what is wrong, and what to do about it.')
    .option('-c, --config <file>', "a peer's dfdaemon.yaml, for its ports and paths")
    .option('--containerd-config <file>', "containerd's configuration", '/etc/containerd/config.toml')
    .option('--state-dir <directory>', 'of the worker of lazy mounts, where it is another one')
    .option('--cache-dir <directory>', 'of lazy mounts, where it is another one')
    .option('--json', 'print one line with every check')
    .addHelpText('after', examples('pantala doctor', 'pantala doctor --config /etc/dragonfly/dfdaemon.yaml --json'))
    .action(action('doctor', async (options) => (await import('../commands/doctor.ts')).doctor(options)));
}
