import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PantalaError } from '@pantala/base';
import { ReversibleChanges, type UndoResult } from './changes.ts';
import { newConfigToml, withConfigPath } from './config-toml.ts';
import { hostsToml, type MirroredRegistry, OUR_MARK } from './hosts-toml.ts';

export interface MirrorOptions {
  /** `http://HOST:PORT` of the peer's proxy. */
  readonly proxy: string;
  readonly registries: readonly MirroredRegistry[];
  /** Directory of `hosts.toml` files. */
  readonly certsDir: string;
  /** containerd's `config.toml`, when it is to name that directory; undefined leaves it alone. */
  readonly configFile: string | undefined;
  /** Hand-written `hosts.toml` files are moved aside instead of being a reason to stop. */
  readonly replace: boolean;
}

export interface MirrorResult {
  readonly written: readonly string[];
  /** containerd reads `config.toml` when it starts, `hosts.toml` at each pull. */
  readonly restartNeeded: boolean;
  /** What containerd's configuration has to say. */
  readonly configLine: string;
}

/**
 * Makes containerd pull from the named registries through a peer's proxy.
 *
 * @throws `already-exists` for a hand-written `hosts.toml`, before anything is written; `failed-precondition` where
 *   `config.toml` cannot be changed safely
 */
export function mirrorRegistries(options: MirrorOptions): MirrorResult {
  const changes = new ReversibleChanges(recordOf(options.certsDir));
  const { configFile, certsDir } = options;
  const files = options.registries.map((registry) => ({
    path: join(certsDir, registry.namespace, 'hosts.toml'),
    content: hostsToml(registry, options.proxy),
  }));
  const foreign = files.filter(({ path }) => existsSync(path) && !changes.owns(path) && !isOurs(path));
  if (foreign.length > 0 && !options.replace) {
    throw new PantalaError(
      'already-exists',
      `${foreign.map(({ path }) => path).join(' and ')} was written by somebody else and is left as it is. Either add [host.${JSON.stringify(options.proxy)}] to it by hand, or say --replace: it is then moved aside and comes back with --undo`,
    );
  }
  const config = configFile === undefined ? undefined : configText(configFile, certsDir);
  for (const { path, content } of files) changes.write(path, content);
  if (configFile !== undefined && config !== undefined) changes.write(configFile, config);
  return {
    written: [
      ...files.map(({ path }) => path),
      ...(configFile === undefined || config === undefined ? [] : [configFile]),
    ],
    restartNeeded: config !== undefined,
    configLine: `config_path = ${JSON.stringify(certsDir)}`,
  };
}

/** Takes back everything that was written for a directory of `hosts.toml` files. */
export function undoMirror(certsDir: string): UndoResult {
  return new ReversibleChanges(recordOf(certsDir)).undo();
}

function recordOf(certsDir: string): string {
  return join(dirname(certsDir), 'pantala-init.json');
}

function isOurs(path: string): boolean {
  return readFileSync(path, 'utf8').startsWith(OUR_MARK);
}

/** The new text of `config.toml`; undefined when it names the directory already. */
function configText(configFile: string, certsDir: string): string | undefined {
  if (!existsSync(configFile)) return newConfigToml(certsDir);
  return withConfigPath(readFileSync(configFile, 'utf8'), certsDir, configFile);
}
