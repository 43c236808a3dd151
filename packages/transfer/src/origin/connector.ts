import { connect, isIP, type Socket } from 'node:net';
import {
  createSecureContext,
  rootCertificates,
  type SecureContext,
  type TLSSocket,
  connect as tlsConnect,
} from 'node:tls';
import { AbortScope, PantalaError } from '@pantala/base';
import type { AddressGuard, CheckedAddress } from './address-guard.ts';
import type { CompiledOriginOptions, OriginTrust } from './options.ts';
import { type OnRead, SocketReader } from './socket-reader.ts';

export interface OpenedSocket {
  readonly socket: Socket;
  readonly reader: SocketReader;
}

interface Trust {
  readonly hosts: RegExp | undefined;
  readonly insecure: boolean;
  /** Made once: it parses every authority. */
  readonly context: SecureContext;
}

/** The one place from which connections leave for origins: resolves, checks, connects to what was checked. */
export class Connector {
  readonly #guard: AddressGuard;
  readonly #timeout: number;
  readonly #trust: readonly Trust[];
  #defaultContext: SecureContext | undefined;

  /** @throws `invalid-argument` for a pattern that is no regular expression, or an authority that is no PEM */
  constructor(guard: AddressGuard, options: Pick<CompiledOriginOptions, 'connectTimeout' | 'trust'>) {
    this.#guard = guard;
    this.#timeout = options.connectTimeout;
    this.#trust = options.trust.map(compileTrust);
  }

  /** A connection to the origin of a URL. @throws `permission-denied`, `unavailable`, `deadline-exceeded` */
  async open(url: URL, signal: AbortSignal | undefined): Promise<OpenedSocket> {
    const secure = url.protocol === 'https:';
    const port = Number(url.port) || (secure ? 443 : 80);
    const reader = new SocketReader();
    if (!secure) {
      const socket = await this.#connectAny(url.hostname, port, signal, reader.onRead);
      reader.attach(socket, true);
      return { socket, reader };
    }
    const plain = await this.#connectAny(url.hostname, port, signal);
    const socket = await this.#secure(plain, url, signal);
    reader.attach(socket, false);
    return { socket, reader };
  }

  /** A bare TCP connection, for a tunnel. @throws as `open` */
  tunnel(host: string, port: number, signal: AbortSignal | undefined): Promise<Socket> {
    return this.#connectAny(host, port, signal);
  }

  async #connectAny(host: string, port: number, signal: AbortSignal | undefined, onread?: OnRead): Promise<Socket> {
    const addresses = await this.#guard.resolve(host, port, signal);
    let failure: PantalaError | undefined;
    for (const address of addresses) {
      try {
        return await this.#connect(address, signal, onread);
      } catch (error) {
        if (signal?.aborted === true) throw PantalaError.from(signal.reason);
        failure ??= PantalaError.from(error);
      }
    }
    const reason = failure?.message ?? 'no address';
    throw new PantalaError('unavailable', `cannot connect to ${host}:${port}: ${reason}`, { cause: failure });
  }

  async #connect(to: CheckedAddress, signal: AbortSignal | undefined, onread: OnRead | undefined): Promise<Socket> {
    using scope = new AbortScope([signal], { timeout: this.#timeout, what: `connecting to ${to.address}:${to.port}` });
    const { address: host, port } = to;
    const socket = connect({ host, port, noDelay: true, keepAlive: true, ...(onread === undefined ? {} : { onread }) });
    await event(socket, 'connect', scope.signal);
    return socket;
  }

  #systemContext(): SecureContext {
    this.#defaultContext ??= createSecureContext();
    return this.#defaultContext;
  }

  async #secure(plain: Socket, url: URL, signal: AbortSignal | undefined): Promise<TLSSocket> {
    using scope = new AbortScope([signal], { timeout: this.#timeout, what: `the TLS handshake with ${url.host}` });
    const trust = this.#trust.find(({ hosts }) => hosts === undefined || hosts.test(url.host));
    const name = url.hostname.startsWith('[') ? url.hostname.slice(1, -1) : url.hostname;
    const socket = tlsConnect({
      socket: plain,
      host: name,
      ...(isIP(name) === 0 ? { servername: name } : {}),
      ALPNProtocols: ['http/1.1'],
      rejectUnauthorized: trust?.insecure !== true,
      secureContext: trust?.context ?? this.#systemContext(),
    });
    try {
      await event(socket, 'secureConnect', scope.signal);
    } catch (error) {
      plain.destroy();
      const { code, message } = PantalaError.from(error);
      if (code === 'cancelled' || code === 'deadline-exceeded') throw error;
      throw new PantalaError('unavailable', `no TLS connection to ${url.host}: ${message}`, { cause: error });
    }
    return socket;
  }
}

function compileTrust(trust: OriginTrust): Trust {
  const { hosts, insecure = false, authorities = [] } = trust;
  // Naming any authority replaces the built-in ones, so they are named as well.
  const ca = authorities.length === 0 ? undefined : [...rootCertificates, ...authorities];
  try {
    return {
      hosts: hosts === undefined ? undefined : new RegExp(hosts),
      insecure,
      context: createSecureContext(ca === undefined ? {} : { ca }),
    };
  } catch (error) {
    const { message } = PantalaError.from(error);
    throw new PantalaError('invalid-argument', `trust for "${hosts ?? 'every origin'}": ${message}`, { cause: error });
  }
}

/** Waits for the event that makes a socket usable; destroys the socket when it does not come. */
function event(socket: Socket, name: 'connect' | 'secureConnect', signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (error?: PantalaError) => {
      socket.off(name, onReady).off('error', onError).off('close', onClose);
      signal.removeEventListener('abort', onAbort);
      if (error === undefined) return resolve();
      socket.on('error', () => {});
      socket.destroy();
      reject(error);
    };
    const onReady = () => settle();
    const onError = (error: Error) => settle(PantalaError.from(error));
    const onClose = () => settle(new PantalaError('unavailable', 'the connection was closed'));
    const onAbort = () => settle(PantalaError.from(signal.reason));
    socket.on(name, onReady).on('error', onError).on('close', onClose);
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
}
