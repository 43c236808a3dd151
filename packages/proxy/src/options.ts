import { PantalaError } from '@pantala/base';
import { compilePattern } from './pattern.ts';
import { compileRule, type Rule, type RuleOptions } from './rules.ts';

export interface ListenOptions {
  /** Address to listen on. Default 127.0.0.1. */
  readonly host?: string;
  /** 0: any free port. A range (both ends count): the first free port of it. */
  readonly port: number | { readonly start: number; readonly end: number };
  /** Serve over TLS with this certificate chain and key, both PEM. */
  readonly tls?: { readonly cert: string; readonly key: string };
}

export interface MirrorOptions {
  /** Registry for requests that name none. Default https://index.docker.io. */
  readonly upstream?: string;
  /**
   * Where a request may name its registry, in this order: the `X-Dragonfly-Registry` header, the `ns` query
   * parameter. Default both; the older generation's `dynamic: true` means header only, `false` neither.
   */
  readonly upstreamFrom?: readonly ('header' | 'ns')[];
  /**
   * What goes through the swarm: what the rules say (default), every blob named by sha256 (the older generation
   * without `useProxies`), or nothing (the older `direct`).
   */
  readonly share?: 'rules' | 'layers' | 'nothing';
}

export interface AllowedHost {
  /** Exact host name. */
  readonly host?: string;
  /** Pattern found anywhere in the host name. */
  readonly regex?: string;
  /** Ports; none: all. */
  readonly ports?: readonly number[];
}

export interface InterceptOptions {
  /** Hosts (without port) whose CONNECT is intercepted: patterns found anywhere in the name. */
  readonly hosts: readonly string[];
  /** Signs the leaf certificates; both PEM. Without them an authority is made once and kept in `stateDir`. */
  readonly authority?: { readonly cert: string; readonly key: string };
}

/** As given. Everything has a default but the port. */
export interface ProxyOptions {
  readonly listen: ListenOptions;
  readonly mirror?: MirrorOptions;
  /** Further listeners with an upstream of their own (`extraRegistryMirrors`). */
  readonly extraMirrors?: readonly { readonly listen: ListenOptions; readonly mirror: MirrorOptions }[];
  /**
   * Unix socket for programs of this machine: they name their registry in `X-Dragonfly-Registry`, every blob goes
   * through the swarm, and the socket's mode says who may ask, not a user and password. Default none.
   */
  readonly socketPath?: string;
  /** The first whose pattern matches decides. Default none. */
  readonly rules?: readonly RuleOptions[];
  readonly intercept?: InterceptOptions;
  /** Directory for the generated authority (`ca.crt`, `ca.key`). Needed for interception without a given one. */
  readonly stateDir?: string;
  /** User and password that clients send in `Proxy-Authorization`. */
  readonly basicAuth?: { readonly username: string; readonly password: string };
  /** The only hosts that may be reached through the proxy. Default: all. */
  readonly whiteList?: readonly AllowedHost[];
  /** Fetch the rest of a resource in the background when a range of it is asked for. Default false. */
  readonly prefetch?: boolean;
  readonly disableBackToSource?: boolean;
  /** Requests at once; more are answered 429. Default: no limit. */
  readonly maxConcurrency?: number;
  /** Requests a second; more are answered 429. Default: no limit. */
  readonly requestRateLimit?: number;
  /** For requests that name none in their headers. */
  readonly defaults?: {
    readonly tag?: string;
    readonly application?: string;
    readonly priority?: number;
    readonly filteredQueryParams?: readonly string[];
  };
  /** Value of `X-Dragonfly-Server-IP` in answers. */
  readonly serverIp?: string;
  /** Existing directories below which `X-Dragonfly-Output-Path` may ask for a file. Default none: such requests get 403. */
  readonly outputDirectories?: readonly string[];
  /** Milliseconds that requests under way have at the end. Default 5,000. */
  readonly shutdownGrace?: number;
  /** Milliseconds for a request's header to arrive. Default 15,000. */
  readonly headerTimeout?: number;
  /** Milliseconds that a connection without a request is kept. Default 120,000 (Go's clients give up after 90 s). */
  readonly idleTimeout?: number;
}

/** Checked, with defaults and compiled patterns. */
export interface CompiledOptions {
  readonly listeners: readonly { readonly listen: ListenOptions; readonly mirror: Mirror }[];
  readonly socketPath: string | undefined;
  readonly rules: readonly Rule[];
  readonly interceptHosts: readonly RegExp[];
  readonly authority: { readonly cert: string; readonly key: string } | undefined;
  readonly stateDir: string | undefined;
  readonly basicAuth: { readonly username: string; readonly password: string } | undefined;
  readonly whiteList: readonly { host?: string; pattern?: RegExp; ports: readonly number[] }[] | undefined;
  readonly prefetch: boolean;
  readonly disableBackToSource: boolean;
  readonly maxConcurrency: number | undefined;
  readonly requestRateLimit: number | undefined;
  readonly defaults: NonNullable<ProxyOptions['defaults']>;
  readonly serverIp: string | undefined;
  readonly outputDirectories: readonly string[];
  readonly shutdownGrace: number;
  readonly headerTimeout: number;
  readonly idleTimeout: number;
}

/** What one listener does with requests in origin form. */
export interface Mirror {
  readonly upstream: URL;
  readonly fromHeader: boolean;
  readonly fromNamespace: boolean;
  readonly share: 'rules' | 'layers' | 'nothing';
}

/** @throws `invalid-argument` naming the option */
export function compileOptions(given: ProxyOptions): CompiledOptions {
  const { intercept, whiteList } = given;
  if (intercept !== undefined && intercept.authority === undefined && given.stateDir === undefined) {
    throw new PantalaError('invalid-argument', 'interception needs an authority or a state directory to keep one in');
  }
  return {
    listeners: [
      { listen: given.listen, mirror: compileMirror(given.mirror ?? {}) },
      ...(given.extraMirrors ?? []).map(({ listen, mirror }) => ({ listen, mirror: compileMirror(mirror) })),
    ],
    socketPath: given.socketPath,
    rules: (given.rules ?? []).map((rule, index) => compileRule(rule, `rules[${index}]`)),
    interceptHosts: (intercept?.hosts ?? []).map((host, index) => compilePattern(host, `intercept.hosts[${index}]`)),
    authority: intercept?.authority,
    stateDir: given.stateDir,
    basicAuth: given.basicAuth,
    whiteList: whiteList?.length === 0 ? undefined : whiteList?.map(compileAllowedHost),
    prefetch: given.prefetch ?? false,
    disableBackToSource: given.disableBackToSource ?? false,
    maxConcurrency: positive(given.maxConcurrency, 'maxConcurrency'),
    requestRateLimit: positive(given.requestRateLimit, 'requestRateLimit'),
    defaults: given.defaults ?? {},
    serverIp: given.serverIp,
    outputDirectories: given.outputDirectories ?? [],
    shutdownGrace: given.shutdownGrace ?? 5_000,
    headerTimeout: given.headerTimeout ?? 15_000,
    idleTimeout: given.idleTimeout ?? 120_000,
  };
}

/** What programs of this machine get on the unix socket. */
export const LOCAL_MIRROR: Mirror = {
  upstream: new URL('https://index.docker.io'),
  fromHeader: true,
  fromNamespace: true,
  share: 'layers',
};

function compileMirror(given: MirrorOptions): Mirror {
  const from = given.upstreamFrom ?? ['header', 'ns'];
  const upstream = URL.parse(given.upstream ?? 'https://index.docker.io');
  if (upstream === null || !/^https?:$/.test(upstream.protocol)) {
    throw new PantalaError('invalid-argument', `registry mirror "${given.upstream}" is no http or https URL`);
  }
  return {
    upstream,
    fromHeader: from.includes('header'),
    fromNamespace: from.includes('ns'),
    share: given.share ?? 'rules',
  };
}

function compileAllowedHost(given: AllowedHost, index: number) {
  return {
    ...(given.host === undefined ? {} : { host: given.host.toLowerCase() }),
    ...(given.regex === undefined ? {} : { pattern: compilePattern(given.regex, `whiteList[${index}].regex`) }),
    ports: given.ports ?? [],
  };
}

function positive(value: number | undefined, name: string): number | undefined {
  if (value !== undefined && !(value > 0)) {
    throw new PantalaError('invalid-argument', `${name} is ${value}; leave it out for no limit`);
  }
  return value;
}
