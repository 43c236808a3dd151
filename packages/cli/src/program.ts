import { ERROR_SURFACES } from '@pantala/base';
import { Command, CommanderError } from 'commander';
import { getCommands } from './definitions/get.ts';
import { imageCommands } from './definitions/image.ts';
import { machineCommands } from './definitions/machine.ts';
import { mountCommands } from './definitions/mount.ts';
import type { ActionWrapper } from './definitions/options.ts';
import { roleCommands } from './definitions/role.ts';
import { taskCommands } from './definitions/task.ts';
import { upCommands } from './definitions/up.ts';
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
  const action: ActionWrapper =
    (name, body) =>
    async (...given) => {
      try {
        status = await body(...given);
      } catch (error) {
        status = printError(name, error, given.some(wantsJson));
      }
    };

  for (const define of [
    roleCommands,
    upCommands,
    getCommands,
    imageCommands,
    machineCommands,
    mountCommands,
    taskCommands,
  ]) {
    define(program, action);
  }

  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    // Commander has said on stderr what it does not understand; help and version are no errors.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE_EXIT;
    throw error;
  }
  return status;
}

function wantsJson(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'json' in value && value.json === true;
}
