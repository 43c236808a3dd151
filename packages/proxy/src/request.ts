import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type Logger, Lru, PantalaError } from '@pantala/base';
import { refuse, refuseWith } from './answers.ts';
import type { DirectClient } from './direct.ts';
import type { Gate } from './gate.ts';
import { type Directives, directivesOf, NO_DIRECTIVES } from './headers.ts';
import type { ProxyMetrics } from './metrics.ts';
import type { CompiledOptions, Mirror } from './options.ts';
import { hasBody, passThrough } from './passthrough.ts';
import { applyRule, matchRule } from './rules.ts';
import type { SharedContent } from './shared.ts';
import { type Target, targetOf } from './target.ts';

export interface RequestParts {
  readonly options: CompiledOptions;
  readonly gate: Gate;
  readonly metrics: ProxyMetrics;
  readonly direct: DirectClient;
  readonly logger: Logger;
  readonly shared: SharedContent;
}

/** Where a request goes after the rules. */
interface Route {
  readonly url: URL;
  /** `url.href` */
  readonly href: string;
  /** By the white list. */
  readonly allowed: boolean;
  readonly shared: boolean;
  readonly filteredQueryParams: readonly string[] | undefined;
}

/** Routes kept for each listener: a reader of ranges asks for the same URL again and again. */
const MAX_ROUTES = 1024;

/** Decides about each request and sees that it is answered. */
export class RequestHandler {
  readonly #parts: RequestParts;
  /** `host:port` of the CONNECT that a connection came through. */
  readonly #tunnels = new WeakMap<Socket, string>();
  readonly #routes = new WeakMap<Mirror, Lru<string, Route>>();
  #running = 0;
  #onDrained: (() => void) | undefined;

  constructor(parts: RequestParts) {
    this.#parts = parts;
  }

  /** Requests on this connection are meant for `origin`, and its client has passed the gate. */
  intercepted(socket: Socket, origin: string): void {
    this.#tunnels.set(socket, origin);
  }

  /** @param isKnown whoever got as far as the listener needs no user and password */
  handle(req: IncomingMessage, res: ServerResponse, mirror: Mirror, isKnown = false): void {
    const { metrics, gate } = this.#parts;
    metrics.requests.add();
    const tunnel = this.#tunnels.get(req.socket);
    if (!isKnown && tunnel === undefined && !gate.knows(req.headers['proxy-authorization'])) {
      const challenge = ['Proxy-Authenticate', 'Basic realm="pantala"'];
      refuse(res, 407, 'proxy', 'the proxy asks for a user and password', challenge);
      return;
    }
    const place = gate.admit();
    if (place === undefined) {
      refuse(res, 429, 'proxy', 'too many requests; try again later', ['Retry-After', '1']);
      return;
    }
    this.#running++;
    metrics.running.add(1);
    const abandoned = new AbortController();
    res.once('close', () => {
      place[Symbol.dispose]();
      metrics.running.add(-1);
      if (!res.writableFinished) abandoned.abort(new PantalaError('cancelled', 'the client went away'));
      this.#running--;
      if (this.#running === 0) this.#onDrained?.();
    });
    void this.#serve(req, res, mirror, tunnel, abandoned.signal);
  }

  /** Resolves when no request is under way, or after `limit` milliseconds. */
  async drained(limit: number): Promise<void> {
    if (this.#running === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, limit);
      this.#onDrained = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async #serve(
    req: IncomingMessage,
    res: ServerResponse,
    mirror: Mirror,
    tunnel: string | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { metrics, shared, direct } = this.#parts;
    let sharing = false;
    try {
      const directives = directivesOf(req);
      const route = this.#routeOf(req, mirror, tunnel, directives);
      if (!route.allowed) return refuse(res, 403, 'proxy', `${route.url.host} is not on the white list`);
      sharing = route.shared;
      (sharing ? metrics.shared : metrics.direct).add();
      if (!sharing) return await passThrough(direct, route.url, req, res, signal);
      const { href, filteredQueryParams } = route;
      try {
        await shared.serve({ req, res, url: href, directives, filteredQueryParams, signal });
      } catch (error) {
        if (res.headersSent || signal.aborted || !servedDirectlyAfter(error)) throw error;
        this.#parts.logger.warn('served past the swarm', { url: withoutQuery(route.url), error: messageOf(error) });
        await passThrough(direct, route.url, req, res, signal);
      }
    } catch (error) {
      this.#fail(req, res, error, sharing, signal);
    }
  }

  #routeOf(req: IncomingMessage, mirror: Mirror, tunnel: string | undefined, directives: Directives): Route {
    // Without headers that say more, and without a body, the rest decides: the door, the URL and the method.
    const plain = directives === NO_DIRECTIVES && req.method === 'GET' && !hasBody(req);
    const key = `${tunnel ?? ''} ${req.url}`;
    const known = plain ? this.#routes.get(mirror)?.get(key) : undefined;
    if (known !== undefined) return known;
    const route = this.#route(req, targetOf(req, mirror, tunnel), mirror, directives);
    if (plain) {
      const routes = this.#routes.get(mirror) ?? new Lru<string, Route>(MAX_ROUTES);
      this.#routes.set(mirror, routes);
      routes.set(key, route);
    }
    return route;
  }

  #route(req: IncomingMessage, target: Target, mirror: Mirror, directives: Directives): Route {
    const { method } = req;
    const allowed = this.#parts.gate.allows(bareHost(target.url), portOf(target.url));
    const direct = { url: target.url, href: target.url.href, allowed, shared: false, filteredQueryParams: undefined };
    if (!allowed) return direct;
    if (method !== 'GET' && method !== 'HEAD') return direct;
    const share = target.mode === 'mirror' ? mirror.share : 'rules';
    const rule = share === 'rules' ? matchRule(this.#parts.options.rules, target.url) : undefined;
    const url = rule === undefined ? target.url : applyRule(rule, target.url);
    const wanted =
      directives.useP2p || (share === 'layers' && isBlob(target.url)) || (rule !== undefined && !rule.direct);
    return {
      url,
      href: url.href,
      allowed,
      shared: wanted && method === 'GET' && !hasBody(req) && !isOfTheRegistryApi(url),
      filteredQueryParams: rule?.filteredQueryParams,
    };
  }

  #fail(req: IncomingMessage, res: ServerResponse, thrown: unknown, shared: boolean, signal: AbortSignal): void {
    if (signal.aborted) return void res.destroy();
    const error = PantalaError.from(thrown);
    this.#parts.metrics.failures.add();
    this.#parts.logger.warn('request failed', {
      method: req.method,
      host: req.headers.host,
      code: error.code,
      error: error.message,
      begun: res.headersSent,
    });
    const ofTheProxy = error.code === 'invalid-argument' || error.code === 'permission-denied';
    refuseWith(res, error, ofTheProxy ? 'proxy' : shared ? 'dfdaemon' : 'backend');
  }
}

/** What can't be a task, or not now, is no reason to refuse it. */
function servedDirectlyAfter(error: unknown): boolean {
  const { code } = PantalaError.from(error);
  return code === 'disk-full' || code === 'unimplemented' || code === 'failed-precondition' || code === 'internal';
}

function isBlob(url: URL): boolean {
  return /\/blobs\/sha256:/.test(url.pathname);
}

/** Manifests, tags, referrers and tokens: small, changing or meant for one caller, whatever a rule says. */
function isOfTheRegistryApi(url: URL): boolean {
  const { pathname, searchParams } = url;
  if (/^\/v2\/(?:$|_catalog$|.+\/(?:manifests|tags|referrers)\/[^/]+$)/.test(pathname)) return true;
  return /\/(?:token|auth)$/.test(pathname) && (searchParams.has('service') || searchParams.has('scope'));
}

function portOf(url: URL): number {
  return url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url.port);
}

function bareHost(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, '');
}

function withoutQuery(url: URL): string {
  return `${url.origin}${url.pathname}`;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
