import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { PantalaError } from '@pantala/base';
import { ALL_REGISTRIES, configPathOf, mirrorRegistries, parseRegistry, undoMirror } from '../containerd/index.ts';
import { type CommonOptions, note, print, printJson } from '../output.ts';

interface InitContainerdOptions extends CommonOptions {
  readonly registry: readonly string[];
  readonly allRegistries?: boolean;
  readonly proxy: string;
  readonly config: string;
  readonly certsDir?: string;
  readonly injectConfigPath?: boolean;
  readonly replace?: boolean;
  readonly restart?: boolean;
  readonly undo?: boolean;
}

const RESTART = ['systemctl', 'restart', 'containerd'] as const;

export async function initContainerd(options: InitContainerdOptions): Promise<number> {
  const configFile = resolve(options.config);
  const named = existsSync(configFile) ? configPathOf(readFileSync(configFile, 'utf8')) : undefined;
  const certsDir = resolve(options.certsDir ?? named ?? join(dirname(configFile), 'certs.d'));
  if (options.undo === true) return undo(certsDir, configFile, options);

  const registries = options.registry.map(parseRegistry);
  if (options.allRegistries === true) registries.push(ALL_REGISTRIES);
  if (registries.length === 0) {
    throw new PantalaError('invalid-argument', 'name a registry with --registry, or say --all-registries');
  }
  const result = mirrorRegistries({
    proxy: proxyUrl(options.proxy),
    registries,
    certsDir,
    configFile: options.injectConfigPath === true ? configFile : undefined,
    replace: options.replace ?? false,
  });
  const restarted = result.restartNeeded && options.restart === true;
  if (restarted) await restartContainerd();
  if (options.json === true) printJson({ ...result, restarted });
  else {
    for (const path of result.written) print(`wrote ${path}`);
    if (options.injectConfigPath !== true && named !== certsDir) {
      note(`containerd uses these files once ${configFile} says: ${result.configLine}  (or say --inject-config-path)`);
    }
    if (result.restartNeeded && !restarted) note(`for ${configFile} to take effect: ${RESTART.join(' ')}`);
  }
  return 0;
}

async function undo(certsDir: string, configFile: string, options: InitContainerdOptions): Promise<number> {
  const result = undoMirror(certsDir);
  const restartNeeded = [...result.restored, ...result.removed].includes(configFile);
  const restarted = restartNeeded && options.restart === true;
  if (restarted) await restartContainerd();
  if (options.json === true) printJson({ ...result, restartNeeded, restarted });
  else {
    for (const path of result.restored) print(`restored ${path}`);
    for (const path of result.removed) print(`removed ${path}`);
    if (result.restored.length + result.removed.length + result.left.length === 0) print('there was nothing to undo');
    if (restartNeeded && !restarted) note(`for ${configFile} to take effect: ${RESTART.join(' ')}`);
  }
  for (const path of result.left) {
    note(
      `${path} was changed since and is left as it is; what was there before is in ${path}.pantala-backup if that exists`,
    );
  }
  return 0;
}

/** @throws `unavailable` when containerd does not come back */
export async function restartContainerd(): Promise<void> {
  const [command, ...args] = RESTART;
  try {
    await promisify(execFile)(command, args);
  } catch (cause) {
    throw new PantalaError(
      'unavailable',
      `the files are written, but "${RESTART.join(' ')}" failed: restart containerd in the way of this machine`,
      { cause },
    );
  }
}

function proxyUrl(text: string): string {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol) || url.pathname !== '/') {
    throw new PantalaError('invalid-argument', `--proxy ${text} is no address such as http://127.0.0.1:4001`);
  }
  return url.origin;
}
