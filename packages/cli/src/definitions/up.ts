import type { Command } from 'commander';
import { type ActionWrapper, examples, whole } from './options.ts';

/** `pantala up`: a whole swarm on this machine. */
export function upCommands(program: Command, action: ActionWrapper): void {
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
    .action(action('up', async (options) => (await import('../commands/up.ts')).up(options)));
}
