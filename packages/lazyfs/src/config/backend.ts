import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { PantalaError } from '@pantala/base';
import type { Credentials } from '@pantala/oci';
import {
  type ConfigNode,
  count,
  type Decoded,
  type Decoder,
  dictionary,
  flag,
  list,
  optionalSection,
  section,
  text,
} from '@pantala/service';
import type { MirrorOptions, ProxyOptions } from '../sources/index.ts';
import type { ConfiguredSources } from './nydusd-config.ts';

const SECOND = 1_000;
/** Back ends of nydusd that are none here. */
const UNKNOWN_BACKENDS: Readonly<Record<string, string>> = {
  oss: 'blobs in object storage are read through a registry',
  s3: 'blobs in object storage are read through a registry',
  localdisk: 'blobs on partitions are not read; put them in a directory and use localfs',
  'http-proxy': 'use a registry with a proxy or mirrors',
};

const SIZED = 'reads of local files need no hints: the kernel reads ahead';
const localfs = section(
  { dir: text(), blob_file: text(), alt_dirs: list(text()) },
  { unused: { readahead: SIZED, readahead_sec: SIZED } },
);

const mirror = section({
  host: text(''),
  headers: dictionary(text()),
  ping_url: text(),
  health_check_interval: count(5),
  failure_limit: count(5),
  auth_through: flag(false),
});

const proxy = optionalSection(
  {
    url: text(''),
    ping_url: text(''),
    fallback: flag(true),
    check_interval: count(5),
    use_http: flag(false),
  },
  {
    unused: {
      check_pause_elapsed: 'a proxy is only asked whether it lives while it is left out',
      dragonfly_scheduler_endpoint: "bytes come through a peer's proxy; name that one",
    },
  },
);

const registry = section(
  {
    scheme: text(''),
    host: text(''),
    repo: text(''),
    auth: text(),
    registry_token: text(),
    skip_verify: flag(false),
    ca_cert_files: list(text()),
    timeout: count(5),
    blob_url_scheme: text(''),
    blob_redirected_host: text(''),
    proxy,
    mirrors: list(mirror),
  },
  {
    unused: {
      connect_timeout: 'timeout holds for connecting, too',
      retry_limit: 'a read is tried again until its deadline',
      disable_passthrough: 'blobs of a registry are never passed through',
    },
  },
);

/** The list of mirrors by itself, as charts and `hosts` files have it. */
export const mirrors: Decoder<readonly MirrorOptions[]> = {
  decode: (node) =>
    list(mirror)
      .decode(node)
      .map((decoded) => mirrorOptions(decoded, node)),
};

/**
 * A back end: its type, and the options of that type under a key that the caller names.
 *
 * @param configOf the node with the options of a type
 * @param environment for `IMAGE_PULL_AUTH`, which goes before what the file says
 */
export function backend(
  configKeyOf: (type: string) => string,
  siblings: readonly string[],
  environment: NodeJS.ProcessEnv,
): Decoder<ConfiguredSources | undefined> {
  return {
    decode(node) {
      if (node.absent) return undefined;
      const type = node.entries?.find(({ key }) => key === 'type')?.value;
      const name = type?.text ?? '';
      const unused = Object.fromEntries(
        siblings
          .filter((key) => key !== configKeyOf(name))
          .map((key) => [key, `the back end is ${name || 'not named'}`]),
      );
      const shape = { type: text(''), [configKeyOf(name)]: { decode: (inner: ConfigNode) => inner } };
      const decoded = section(shape, { unused }).decode(node);
      if (name !== 'localfs' && name !== 'registry') {
        const reason = UNKNOWN_BACKENDS[name];
        (type ?? node).problem(
          `back end "${name}" is not known here${reason ? `: ${reason}` : '; known: registry, localfs'}`,
        );
        return undefined;
      }
      const config = decoded[configKeyOf(name)] as ConfigNode;
      return name === 'localfs'
        ? localSources(config, localfs.decode(config))
        : registrySources(config, registry.decode(config) as Decoded<typeof registry>, environment);
    },
  };
}

function localSources(node: ConfigNode, decoded: Decoded<typeof localfs>): ConfiguredSources | undefined {
  const directories = [...(decoded.dir === undefined ? [] : [decoded.dir]), ...decoded.alt_dirs];
  if (directories.length === 0 && decoded.blob_file === undefined) {
    node.problem(`${node.path} must have dir or blob_file`);
    return undefined;
  }
  const file = decoded.blob_file;
  return { kind: 'local', local: { directories, ...(file === undefined ? {} : { file }) } };
}

function registrySources(
  node: ConfigNode,
  decoded: Decoded<typeof registry>,
  environment: NodeJS.ProcessEnv,
): ConfiguredSources | undefined {
  for (const key of ['host', 'repo'] as const) {
    if (decoded[key] === '') node.problem(`${node.path}.${key} is missing`);
  }
  const redirect = {
    ...(decoded.blob_redirected_host === '' ? {} : { host: decoded.blob_redirected_host }),
    ...(decoded.blob_url_scheme === '' ? {} : { scheme: scheme(node, 'blob_url_scheme', decoded.blob_url_scheme) }),
  };
  const credentials = credentialsOf(node, environment.IMAGE_PULL_AUTH ?? decoded.auth, decoded.registry_token);
  const proxied = proxyOptions(decoded.proxy);
  const authorities = decoded.ca_cert_files.map((path) => certificates(node, path)).join('\n');
  const registryScheme =
    decoded.scheme === '' ? (isLoopback(decoded.host) ? 'http' : 'https') : scheme(node, 'scheme', decoded.scheme);
  return {
    kind: 'registry',
    registry: {
      registry: `${registryScheme}://${decoded.host}`,
      repository: decoded.repo,
      mirrors: decoded.mirrors.map((each) => mirrorOptions(each, node)),
      insecure: decoded.skip_verify,
      timeout: decoded.timeout * SECOND,
      ...(authorities === '' ? {} : { ca: authorities }),
      ...(Object.keys(redirect).length === 0 ? {} : { redirect }),
      ...(proxied === undefined ? {} : { proxy: proxied }),
    },
    ...(credentials === undefined ? {} : { credentials }),
  };
}

function scheme(node: ConfigNode, key: string, value: string): 'http' | 'https' {
  if (value !== 'http' && value !== 'https') node.problem(`${node.path}.${key} must be http or https, not "${value}"`);
  return value === 'http' ? 'http' : 'https';
}

/** Registries on this machine have no certificate, as containerd and Docker take it. */
function isLoopback(host: string): boolean {
  const name = host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
  return name === 'localhost' || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'));
}

function credentialsOf(node: ConfigNode, auth: string | undefined, token: string | undefined): Credentials | undefined {
  if (token !== undefined && token !== '') return { kind: 'registry', token };
  if (auth === undefined || auth === '') return undefined;
  const decoded = Buffer.from(auth, 'base64').toString();
  const colon = decoded.indexOf(':');
  if (colon < 1) {
    node.problem(`${node.path}.auth must be user:password in base64`);
    return undefined;
  }
  return { kind: 'password', username: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
}

function mirrorOptions(decoded: Decoded<typeof mirror>, node: ConfigNode): MirrorOptions {
  if (!/^https?:\/\//.test(decoded.host))
    node.problem(`${node.path}: host "${decoded.host}" of a mirror must begin with http:// or https://`);
  return {
    host: decoded.host,
    headers: decoded.headers,
    healthCheckInterval: decoded.health_check_interval * SECOND,
    failureLimit: decoded.failure_limit,
    authThrough: decoded.auth_through,
    ...(decoded.ping_url === undefined || decoded.ping_url === '' ? {} : { pingUrl: decoded.ping_url }),
  };
}

function proxyOptions(decoded: Decoded<typeof proxy>): ProxyOptions | undefined {
  if (decoded === undefined || decoded.url === '') return undefined;
  return {
    url: decoded.url,
    fallback: decoded.fallback,
    checkInterval: decoded.check_interval * SECOND,
    plainHttp: decoded.use_http,
    ...(decoded.ping_url === '' ? {} : { pingUrl: decoded.ping_url }),
  };
}

function certificates(node: ConfigNode, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    node.problem(`${node.path}.ca_cert_files: ${PantalaError.from(error).message}`);
    return '';
  }
}
