import { readFileSync } from 'node:fs';
import { PantalaError } from '@pantala/base';
import { type ConfigNode, ConfigReport, knownKeys, parseConfig, readConfig } from '@pantala/service';
import { compileOlder, olderProxySchema, olderSchema } from './older.ts';
import type { Generation, PeerConfig } from './peer-config.ts';
import { compileToday, todaySchema } from './today.ts';

export interface LoadedPeerConfig {
  readonly config: PeerConfig;
  /** Keys that are known but have no effect, with place and reason. */
  readonly warnings: readonly string[];
}

/**
 * Reads `dfdaemon.yaml` of either generation; which one it is, is told by its keys.
 *
 * @throws `failed-precondition` naming every mistake with file, line, column and the nearest known key; `not-found`
 *   and `permission-denied` for the file and those that it names
 */
export function loadPeerConfig(path: string): LoadedPeerConfig {
  const report = new ConfigReport();
  const node = readConfig(path, report);
  const config = decodePeerConfig(node, generationOf(node));
  report.throwIfBad();
  return { config, warnings: report.warnings };
}

/** The same for a part of a larger file. Its report gets what is wrong with it. */
export function decodePeerConfig(node: ConfigNode, generation: Generation): PeerConfig {
  if (generation === 'today') return compileToday(todaySchema.decode(node), readText);
  const file = olderSchema.decode(node);
  const place = file.proxy;
  const proxy = place.file === undefined ? place.inline : olderProxySchema.decode(node.other(place.file));
  return compileOlder(file, proxy, readText);
}

/** What a peer does without a file. */
export function defaultPeerConfig(generation: Generation): PeerConfig {
  const report = new ConfigReport();
  const empty = parseConfig('', 'defaults', report);
  if (generation === 'today') return compileToday(todaySchema.decode(empty), readText);
  const file = olderSchema.decode(empty);
  return compileOlder(file, file.proxy.inline, readText);
}

/** The generation whose keys a file has; today's where both know as many. */
function generationOf(node: ConfigNode): Generation {
  return knownKeys(node, olderSchema) > knownKeys(node, todaySchema) ? 'older' : 'today';
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const cause = PantalaError.from(error);
    throw new PantalaError(cause.code, `cannot read ${path}, which the configuration names: ${cause.message}`, {
      cause,
    });
  }
}
