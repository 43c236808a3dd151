import { existsSync, readFileSync } from 'node:fs';
import { flushCompileCache } from 'node:module';
import { join } from 'node:path';
import type { Logger } from '@pantala/base';
import { createLogger, type LoggingOptions, MetricsRegistry, runProgram } from '@pantala/service';
import { type CommonOptions, note, printJson } from '../output.ts';
import { loadRole, type Role, type RoleName, startRole } from '../roles.ts';

interface ServeOptions extends CommonOptions {
  readonly config?: string;
  readonly dynconfig?: string;
  readonly logDir?: string;
  readonly verbose?: boolean;
  readonly console?: boolean;
  readonly supervised?: string;
}

/** Where upstream's peers and schedulers look for it when nobody names another. */
const DYNCONFIG = '/etc/dragonfly/dynconfig.yaml';

/** What a supervising `pantala up` tells its child, in a file of its own. */
export interface SupervisedProgram {
  readonly role: Role;
  readonly logging: LoggingOptions;
}

export async function serve(name: RoleName, options: ServeOptions): Promise<number> {
  const { role, logging, warnings } =
    options.supervised === undefined
      ? await fromFiles(name, options)
      : { ...supervised(options.supervised), warnings: [] };
  using logger = createLogger(logging);
  for (const warning of warnings) {
    note(`pantala ${name}: ${warning}`);
    logger.warn(warning);
  }
  if (options.supervised !== undefined) endWithParent(logger);
  const metrics = new MetricsRegistry({ process: true });
  return await runProgram({
    name,
    logger,
    start: (signal) => startRole(role, { logger, metrics, signal }),
    ready: (running) => {
      // A program that is killed one day has its code compiled all the same.
      flushCompileCache();
      if (options.json === true) printJson({ ready: true, name, pid: process.pid, ...running.addresses });
    },
  });
}

async function fromFiles(
  name: RoleName,
  options: ServeOptions,
): Promise<SupervisedProgram & { readonly warnings: readonly string[] }> {
  const dynconfig = options.dynconfig ?? (existsSync(DYNCONFIG) ? DYNCONFIG : undefined);
  const { role, log, warnings } = await loadRole(name, options.config, dynconfig);
  return {
    role,
    warnings,
    logging: {
      verbose: options.verbose === true || log.verbose,
      console: options.console === true || log.console,
      file: options.logDir === undefined ? join(log.directory, log.path) : join(options.logDir, log.file),
    },
  };
}

function supervised(path: string): SupervisedProgram {
  return JSON.parse(readFileSync(path, 'utf8')) as SupervisedProgram;
}

/** A supervisor that was killed closes our stdin: nobody else would stop us then. */
function endWithParent(logger: Logger): void {
  process.stdin.resume().once('end', () => {
    logger.warn('the supervising program is gone, stopping');
    process.kill(process.pid, 'SIGTERM');
  });
}
