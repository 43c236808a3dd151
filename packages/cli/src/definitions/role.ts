import { type Command, Option } from 'commander';
import { type ActionWrapper, examples } from './options.ts';

/** `pantala manager`, `scheduler`, `peer`: one role in this process. */
export function roleCommands(program: Command, action: ActionWrapper): void {
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
      .action(action(role, async (options) => (await import('../commands/serve.ts')).serve(role, options)));
  }
}

const ROLE_FILES = { manager: 'manager.yaml', scheduler: 'scheduler.yaml', peer: 'dfdaemon.yaml' } as const;

const ROLE_DESCRIPTIONS = {
  manager: 'Runs a manager: clusters, and where their schedulers are.',
  scheduler: 'Runs a scheduler: decides who serves whom.',
  peer: "Runs a peer: proxy, store, uploads. A seed when its file says so. Reads both generations' files.",
} as const;
