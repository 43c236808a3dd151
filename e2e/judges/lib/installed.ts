import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** Where `scripts/judges` puts the programs that others wrote. */
const FOLDER = join(
  process.env.PANTALA_JUDGES ?? join(process.env.XDG_CACHE_HOME ?? '/var/cache', 'pantala-judges'),
  'bin',
);

export function judge(name: string): string {
  return join(FOLDER, name);
}

/** Why tests with these programs cannot run, or undefined when all of them are there. */
export function whyNot(...names: readonly string[]): string | undefined {
  const missing = names.filter((name) => !existsSync(judge(name)));
  return missing.length === 0 ? undefined : `no ${missing.join(', ')} in ${FOLDER}: run scripts/judges`;
}

/** A test's name, with the reason when it is skipped. */
export function titled(name: string, reason: string | undefined): string {
  return reason === undefined ? name : `${name} (${reason})`;
}
