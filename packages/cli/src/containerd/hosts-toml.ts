import { PantalaError } from '@pantala/base';

/** The line that tells our files from hand-written ones. */
export const OUR_MARK = '# Written by pantala; `pantala init containerd --undo` takes it away.';

/** A registry as a user names it, and as containerd knows it. */
export interface MirroredRegistry {
  /** Name of its directory in `certs.d`: host, and port where it has one. `_default` stands for all others. */
  readonly namespace: string;
  /** Undefined for `_default`: containerd says in `?ns=` which registry it means. */
  readonly server: string | undefined;
}

/** Every registry that has no file of its own. */
export const ALL_REGISTRIES: MirroredRegistry = { namespace: '_default', server: undefined };

/**
 * Reads `https://ghcr.io`, `ghcr.io` or `http://localhost:5000`.
 *
 * @throws `invalid-argument`
 */
export function parseRegistry(text: string): MirroredRegistry {
  const url = URL.parse(/^[a-z]+:\/\//.test(text) ? text : `https://${text}`);
  const plain = url !== null && /^https?:$/.test(url.protocol) && /^\/?$/.test(url.pathname) && url.search === '';
  if (!plain || url.username !== '' || url.host === '') {
    throw new PantalaError('invalid-argument', `"${text}" names no registry; write it like https://ghcr.io`);
  }
  // Docker's registry answers under another name than images use.
  const server = url.host === 'docker.io' ? 'https://index.docker.io' : `${url.protocol}//${url.host}`;
  return { namespace: url.host, server };
}

/**
 * `hosts.toml` that sends pulls of a registry through the proxy first and to the registry itself when the proxy does
 * not answer (https://github.com/containerd/containerd/blob/main/docs/hosts.md).
 */
export function hostsToml(registry: MirroredRegistry, proxy: string): string {
  const lines = [OUR_MARK];
  if (registry.server !== undefined) lines.push(`server = ${quoted(registry.server)}`);
  lines.push('', `[host.${quoted(proxy)}]`, '  capabilities = ["pull", "resolve"]');
  if (registry.server !== undefined) {
    lines.push(`  [host.${quoted(proxy)}.header]`, `    X-Dragonfly-Registry = [${quoted(registry.server)}]`);
  }
  return `${lines.join('\n')}\n`;
}

/** A basic string of TOML; URLs need no escapes beyond JSON's. */
export function quoted(text: string): string {
  return JSON.stringify(text);
}
