import type { Command } from 'commander';
import { type ActionWrapper, endpoint, examples } from './options.ts';

/** `pantala task`: what the store holds. */
export function taskCommands(program: Command, action: ActionWrapper): void {
  const task = program.command('task').description("What the peer's store holds.");
  task
    .command('ls')
    .description('Lists tasks.')
    .option(...endpoint)
    .option('--json', 'print one line for each task')
    .addHelpText('after', examples('pantala task ls', 'pantala task ls --json'))
    .action(action('task ls', async (options) => (await import('../commands/task.ts')).listTasks(options)));
  task
    .command('stat')
    .description('Shows what is held of a task.')
    .argument('<id>', 'task id')
    .option(...endpoint)
    .option('--sha256', 'read the whole content and compute its digest')
    .option('--json', 'print one line, with the runs of blocks that are held')
    .addHelpText('after', examples('pantala task stat 0123…ef', 'pantala task stat 0123…ef --sha256 --json'))
    .action(action('task stat', async (id, options) => (await import('../commands/task.ts')).statTask(id, options)));
  task
    .command('rm')
    .description('Removes a task from the store.')
    .argument('<id>', 'task id')
    .option(...endpoint)
    .option('--json', 'print one line')
    .addHelpText('after', examples('pantala task rm 0123…ef'))
    .action(action('task rm', async (id, options) => (await import('../commands/task.ts')).removeTask(id, options)));
}
