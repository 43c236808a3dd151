import { PantalaError } from '@pantala/base';
import { type CredentialSource, isRepository } from '@pantala/oci';

/** A server that is asked before the registry, as nydusd's `mirrors` name it. */
export interface MirrorOptions {
  /** `http(s)://host[:port]`. */
  readonly host: string;
  /** Sent with every request: `X-Dragonfly-Registry` tells a Dragonfly proxy where the registry is. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Asked whether the mirror lives. Default `<host>/v2/`. */
  readonly pingUrl?: string;
  /** Milliseconds between two questions while it is left out. Default 5,000. */
  readonly healthCheckInterval?: number;
  /** Failures in a row after which it is left out. Default 5. */
  readonly failureLimit?: number;
  /**
   * Whether the registry's 401 and what it asks for come through the mirror too. Default false: tokens are asked for
   * with the registry itself, and the mirror only sees them.
   */
  readonly authThrough?: boolean;
}

/** A forward proxy that fetches for us, Dragonfly's or another one. */
export interface ProxyOptions {
  readonly url: string;
  readonly pingUrl?: string;
  /** Milliseconds between two questions while it is left out. Default 5,000. */
  readonly checkInterval?: number;
  /** Whether the registry is asked when the proxy fails. Default true. */
  readonly fallback?: boolean;
  /** Whether the proxy is told `http` where the registry is `https`: for rules that turn it back. Default false. */
  readonly plainHttp?: boolean;
}

export interface RegistrySourceOptions {
  /** `http(s)://host[:port]`. */
  readonly registry: string;
  /** Name of the repository that the blobs are in. */
  readonly repository: string;
  /** Default: anonymous. Asked again whenever the registry wants to know. */
  readonly credentials?: CredentialSource;
  /**
   * Unix socket on which the peer of this machine gives content; false: none is asked. Default: where a peer has it
   * unless its configuration says otherwise. It need not be there.
   */
  readonly peerSocket?: string | false;
  readonly mirrors?: readonly MirrorOptions[];
  readonly proxy?: ProxyOptions;
  /** PEM certificates trusted besides the system's. */
  readonly ca?: string;
  /** Accept any certificate. Default false. */
  readonly insecure?: boolean;
  /** Milliseconds without a byte after which a request has failed. Default 10,000. */
  readonly timeout?: number;
  /** Milliseconds after which a read fails in any case, however many sources are left. Default 60,000. */
  readonly deadline?: number;
  /** Where redirects of the registry lead instead of to their own host and scheme. */
  readonly redirect?: { readonly host?: string; readonly scheme?: 'http' | 'https' };
  /**
   * Whether a peer is asked to fetch the whole blob when a part of it is prefetched. Default false. For demand its own
   * configuration decides.
   */
  readonly wholeBlobs?: boolean;
}

export interface LocalSourceOptions {
  /** Directories with stored blobs, each named by its id; searched in order. */
  readonly directories: readonly string[];
  /** One file that is every blob: for images that have a single one. */
  readonly file?: string;
}

/** @throws `invalid-argument` naming the option */
export function httpUrl(text: string, option: string): URL {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new PantalaError('invalid-argument', `${option} "${text.slice(0, 200)}" is no http or https URL`);
  }
  return url;
}

/** @throws `invalid-argument` */
export function checkedRepository(name: string): string {
  if (!isRepository(name)) throw new PantalaError('invalid-argument', `"${name.slice(0, 200)}" is no repository`);
  return name;
}
