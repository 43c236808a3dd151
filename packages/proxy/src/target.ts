import type { IncomingMessage } from 'node:http';
import { PantalaError } from '@pantala/base';
import { registryHost } from '@pantala/oci';
import type { Mirror } from './options.ts';

/** Characters of a request's URL. Pre-signed URLs have up to about 3,000; rules search all but the query of it. */
export const MAX_URL_LENGTH = 8 * 1024;

/** Where a request is meant to go, and by which of the proxy's doors it came. */
export interface Target {
  readonly url: URL;
  readonly mode: 'mirror' | 'forward' | 'intercepted';
}

/**
 * @param tunnel `host:port` of the CONNECT that the request came through
 * @throws `invalid-argument` for a URL that is too long (`details.http` is 414 then) or none
 */
export function targetOf(req: IncomingMessage, mirror: Mirror, tunnel: string | undefined): Target {
  const path = req.url ?? '';
  if (path.length > MAX_URL_LENGTH) {
    throw new PantalaError('invalid-argument', `the URL has ${path.length} characters; at most ${MAX_URL_LENGTH}`, {
      details: { http: 414 },
    });
  }
  if (!path.startsWith('/')) return { url: absolute(path), mode: tunnel === undefined ? 'forward' : 'intercepted' };
  if (tunnel !== undefined) return { url: absolute(`https://${tunnel}${path}`), mode: 'intercepted' };
  return { url: mirrored(req, mirror, path), mode: 'mirror' };
}

function absolute(text: string): URL {
  const url = URL.parse(text);
  if (url === null) throw new PantalaError('invalid-argument', `"${text.slice(0, 200)}" is no URL`);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new PantalaError('invalid-argument', `scheme ${url.protocol} is not known to the proxy; known: http, https`);
  }
  if (url.username !== '' || url.password !== '') {
    throw new PantalaError('invalid-argument', 'credentials in a URL are not sent; use the Authorization header');
  }
  url.hash = '';
  return url;
}

function mirrored(req: IncomingMessage, mirror: Mirror, path: string): URL {
  const { query, namespace } = splitNamespace(path);
  const base = upstreamOf(req, mirror, namespace);
  const prefix = base.pathname === '/' ? '' : base.pathname.replace(/\/$/, '');
  return absolute(`${base.protocol}//${base.host}${prefix}${query}`);
}

function upstreamOf(req: IncomingMessage, mirror: Mirror, namespace: string | undefined): URL {
  const header = mirror.fromHeader ? req.headers['x-dragonfly-registry'] : undefined;
  if (typeof header === 'string' && header !== '') {
    if (!header.includes('://')) {
      throw new PantalaError(
        'invalid-argument',
        `X-Dragonfly-Registry "${header.slice(0, 200)}" lacks http:// or https://`,
      );
    }
    return absolute(header);
  }
  if (!mirror.fromNamespace || namespace === undefined || namespace === '') return mirror.upstream;
  return absolute(namespace.includes('://') ? namespace : `https://${registryHost(namespace)}`);
}

/** Takes containerd's `ns` out of a path's query; everything else stays as it is written. */
function splitNamespace(path: string): { query: string; namespace: string | undefined } {
  const mark = path.indexOf('?');
  if (mark < 0 || !path.includes('ns=', mark)) return { query: path, namespace: undefined };
  let namespace: string | undefined;
  const kept = path
    .slice(mark + 1)
    .split('&')
    .filter((pair) => {
      if (!pair.startsWith('ns=')) return true;
      namespace ??= new URLSearchParams(pair).get('ns') ?? undefined;
      return false;
    });
  return { query: path.slice(0, mark) + (kept.length === 0 ? '' : `?${kept.join('&')}`), namespace };
}
