import { type ConfigNode, ConfigReport, parseConfig, parseTomlConfig, readConfigText } from '@pantala/service';
import type { LoadedNydusdConfig } from './nydusd-config.ts';
import { decodeV1, decodeV2, versionOf } from './schema.ts';

/**
 * Reads a configuration file of nydusd, of either generation: JSON, or TOML of the second.
 *
 * @param environment `IMAGE_PULL_AUTH` goes before the credentials in the file
 * @throws `failed-precondition` naming every mistake with its place; `not-found`, `permission-denied`
 */
export function readNydusdConfig(path: string, environment: NodeJS.ProcessEnv = {}): LoadedNydusdConfig {
  return parseNydusdConfig(readConfigText(path), path, environment);
}

/** @param name stands before line and column in messages @throws as readNydusdConfig */
export function parseNydusdConfig(text: string, name: string, environment: NodeJS.ProcessEnv = {}): LoadedNydusdConfig {
  const report = new ConfigReport();
  const root = text.trimStart().startsWith('{') ? parseConfig(text, name, report) : parseTomlConfig(text, name, report);
  const config = isSecondGeneration(root) ? decodeV2(root, environment) : decodeV1(root, environment);
  report.throwIfBad();
  return { config, warnings: report.warnings };
}

function isSecondGeneration(root: ConfigNode): boolean {
  const version = versionOf(root);
  if (version !== undefined && version.text !== '1' && version.text !== '2') {
    version.problem(`version ${version.text ?? ''} is not known; known: 2, and 1 without the key`);
  }
  return version?.text === '2';
}
