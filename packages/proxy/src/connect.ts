import type { IncomingMessage } from 'node:http';
import { isIP, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { TLSSocket } from 'node:tls';
import { AbortScope, ERROR_SURFACES, type Logger, PantalaError } from '@pantala/base';
import type { CertificateAuthority } from './authority.ts';
import type { DirectClient } from './direct.ts';
import type { Gate } from './gate.ts';
import type { ProxyMetrics } from './metrics.ts';

/** Milliseconds without a byte in either direction after which a blind tunnel is closed. */
const TUNNEL_IDLE_LIMIT = 15 * 60_000;
/** Milliseconds for a client to finish its TLS handshake with the proxy. */
const HANDSHAKE_LIMIT = 15_000;

export interface ConnectParts {
  readonly gate: Gate;
  readonly direct: DirectClient;
  readonly authority: CertificateAuthority | undefined;
  readonly interceptHosts: readonly RegExp[];
  readonly metrics: ProxyMetrics;
  readonly logger: Logger;
  readonly signal: AbortSignal;
  /** Takes over a connection whose TLS ends here; `origin` is `host:port` of the CONNECT. */
  readonly onIntercepted: (socket: TLSSocket, origin: string) => void;
}

/** Answers CONNECT: ends the TLS of the hosts that are to be intercepted, joins the others to their target unseen. */
export class ConnectHandler {
  readonly #parts: ConnectParts;

  constructor(parts: ConnectParts) {
    this.#parts = parts;
  }

  async handle(req: IncomingMessage, client: Duplex, early: Buffer): Promise<void> {
    const { gate, metrics, logger } = this.#parts;
    client.on('error', () => client.destroy());
    metrics.requests.add();
    if (!gate.knows(req.headers['proxy-authorization'])) {
      return reply(
        client,
        407,
        'the proxy asks for a user and password',
        'Proxy-Authenticate: Basic realm="pantala"\r\n',
      );
    }
    const target = parseAuthority(req.url ?? '');
    if (target === undefined) return reply(client, 400, `CONNECT needs host:port`);
    if (!gate.allows(target.host, target.port)) return reply(client, 403, `${target.host} is not on the white list`);
    const { authority, interceptHosts } = this.#parts;
    try {
      if (authority !== undefined && interceptHosts.some((pattern) => pattern.test(target.host))) {
        await this.#intercept(authority, target, client, early);
      } else {
        using place = gate.admit();
        if (place === undefined) return reply(client, 429, 'too many requests; try again later');
        await this.#tunnel(target, client, early);
      }
    } catch (thrown) {
      const error = PantalaError.from(thrown);
      metrics.failures.add();
      logger.debug('connect failed', { host: target.host, port: target.port, error: error.message });
      reply(client, error.code === 'unavailable' ? 502 : ERROR_SURFACES[error.code].http, error.message);
    }
  }

  async #intercept(authority: CertificateAuthority, target: Authority, client: Duplex, early: Buffer): Promise<void> {
    const context = await authority.contextFor([target.host]);
    client.write('HTTP/1.1 200 Connection Established\r\n\r\n');
    if (early.length > 0) client.unshift(early);
    const tls = new TLSSocket(client as Socket, {
      isServer: true,
      ALPNProtocols: ['http/1.1'],
      secureContext: context,
      SNICallback: (name, done) => {
        // Clients check the name that they sent, which may be another than that of the CONNECT (an IP address).
        const names = name === '' || name === target.host || name.length > 253 ? [target.host] : [name, target.host];
        authority.contextFor(names).then(
          (chosen) => done(null, chosen),
          (error: unknown) => done(PantalaError.from(error)),
        );
      },
    });
    const timer = setTimeout(() => tls.destroy(), HANDSHAKE_LIMIT);
    tls.once('secure', () => clearTimeout(timer));
    tls.once('close', () => clearTimeout(timer));
    tls.on('error', (error) => {
      this.#parts.logger.debug('interception broke off', { host: target.host, error: error.message });
      tls.destroy();
    });
    this.#parts.onIntercepted(tls, `${target.text}`);
  }

  async #tunnel(target: Authority, client: Duplex, early: Buffer): Promise<void> {
    const { direct, metrics } = this.#parts;
    using scope = new AbortScope([this.#parts.signal]);
    const gone = () => scope.abort();
    client.once('close', gone);
    const server = await direct.connect({ host: target.host, port: target.port, signal: scope.signal });
    client.removeListener('close', gone);
    server.on('error', () => server.destroy());
    metrics.tunnels.add(1);
    try {
      client.write('HTTP/1.1 200 Connection Established\r\n\r\n');
      if (early.length > 0) server.write(early);
      for (const socket of [server, client as Socket]) {
        socket.setTimeout(TUNNEL_IDLE_LIMIT, () => scope.abort(new PantalaError('deadline-exceeded', 'tunnel idle')));
      }
      // Each direction ends by itself: a client may close its side and still read.
      await Promise.all([
        pipeline(client, server, { signal: scope.signal }),
        pipeline(server, client, { signal: scope.signal }),
      ]);
    } catch {
      // Either end may break off at any time; there is nobody left to tell.
    } finally {
      metrics.tunnels.add(-1);
      server.destroy();
      client.destroy();
    }
  }
}

interface Authority {
  readonly host: string;
  readonly port: number;
  /** As a URL's authority has it. */
  readonly text: string;
}

function parseAuthority(text: string): Authority | undefined {
  const match = /^(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(\d{1,5}))?$/.exec(text);
  if (match === null) return undefined;
  const port = Number(match[2] ?? 443);
  const literal = (match[1] as string).replace(/^\[|\]$/g, '').toLowerCase();
  if (port === 0 || port > 65535 || (text.startsWith('[') && isIP(literal) !== 6)) return undefined;
  return { host: literal, port, text: `${(match[1] as string).toLowerCase()}:${port}` };
}

/** Answers a CONNECT with an error: Node leaves its connection to us. */
function reply(client: Duplex, status: number, message: string, headers = ''): void {
  if (!client.writable) return void client.destroy();
  const body = `${message}\n`;
  client.end(
    `HTTP/1.1 ${status} ${status === 407 ? 'Proxy Authentication Required' : 'Refused'}\r\n${headers}` +
      `X-Dragonfly-Error-Type: proxy\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    () => client.destroy(),
  );
}
