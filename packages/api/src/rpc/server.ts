import { chmod, lstat, mkdir, rename, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { Server, type ServiceDefinition } from '@grpc/grpc-js';
import { PantalaError } from '@pantala/base';
import { formatRpcAddress, type RpcAddress } from './address.ts';
import { type RpcTls, serverCredentials } from './credentials.ts';
import { definitionOf } from './definition.ts';
import type { ServedService } from './handlers.ts';
import { HealthBoard } from './health.ts';
import { adaptStreams } from './http2-streams.ts';
import {
  FLOW_CONTROL_WINDOW,
  KEEPALIVE_TIMEOUT,
  MAX_CONCURRENT_STREAMS,
  MAX_MESSAGE_LENGTH,
  STOP_TIMEOUT,
} from './limits.ts';
import { implementation } from './server-methods.ts';

export interface ServerOptions {
  /** Made by `serve(Service, handlers)`. grpc.health.v1.Health is added to them. */
  readonly services: readonly ServedService[];
  readonly address: RpcAddress;
  /** Mode of a unix socket; 0o660 when left out. */
  readonly mode?: number;
  /** Mutual TLS; plain HTTP/2 when left out. */
  readonly tls?: RpcTls | undefined;
  /** Bytes of a received message; MAX_MESSAGE_LENGTH when left out. */
  readonly maxMessageLength?: number;
  /** Milliseconds between pings to clients, so that dead ones are noticed; 30 s when left out. */
  readonly keepaliveInterval?: number;
}

/** A gRPC server that listens. Disposing it stops it in an orderly way. */
export interface RpcServer extends AsyncDisposable {
  /** The address with the port that was really opened. */
  readonly address: RpcAddress;
  readonly health: HealthBoard;
  /**
   * Closes the listener at once, aborts the calls' signals and waits for the calls, at most `timeout` milliseconds
   * (STOP_TIMEOUT when left out); what runs then still is cut off.
   */
  stop(timeout?: number): Promise<void>;
}

/** Milliseconds between pings: a peer that lost its network is noticed within a minute. */
const SERVER_KEEPALIVE_INTERVAL = 30_000;

/**
 * Starts a gRPC server; resolves when it listens.
 *
 * @throws `unavailable` when the address cannot be had, `already-exists` when somebody answers on the unix socket
 */
export async function createServer(options: ServerOptions): Promise<RpcServer> {
  const stopping = new AbortController();
  const health = new HealthBoard(options.services.map(({ service }) => service.typeName));
  const maxMessageLength = options.maxMessageLength ?? MAX_MESSAGE_LENGTH;
  const server = new Server({
    'grpc.max_receive_message_length': maxMessageLength,
    'grpc.max_send_message_length': -1,
    'grpc.max_concurrent_streams': MAX_CONCURRENT_STREAMS,
    'grpc.keepalive_time_ms': options.keepaliveInterval ?? SERVER_KEEPALIVE_INTERVAL,
    'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT,
    'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW,
    // Channelz stays on: without it, forceShutdown of grpc-js 1.14 knows no sessions and cuts nothing off.
  });
  for (const served of [...options.services, health.service()]) addService(server, served, stopping.signal);
  const listening = await listen(server, options);
  let stopped: Promise<void> | undefined;
  const stop = (timeout = STOP_TIMEOUT): Promise<void> => {
    stopped ??= (async () => {
      health.set(false);
      stopping.abort(new PantalaError('unavailable', 'the server is stopping'));
      await shutdown(server, timeout);
      await listening.release();
    })();
    return stopped;
  };
  return { address: listening.address, health, stop, [Symbol.asyncDispose]: () => stop() };
}

function addService(server: Server, { service, handlers }: ServedService, stopping: AbortSignal): void {
  const definition: Record<string, ServiceDefinition[string]> = {};
  const implementations: Record<string, ReturnType<typeof implementation>> = {};
  for (const method of service.methods) {
    definition[method.localName] = definitionOf(method);
    implementations[method.localName] = implementation(method, handlers[method.localName], stopping);
  }
  server.addService(definition, implementations);
  const streaming = service.methods.filter(({ methodKind }) => /^(server|bidi)_streaming$/.test(methodKind));
  adaptStreams(streaming.map(({ name }) => `/${service.typeName}/${name}`));
}

interface Listening {
  readonly address: RpcAddress;
  release(): Promise<void>;
}

async function listen(server: Server, options: ServerOptions): Promise<Listening> {
  const { address } = options;
  if (!('path' in address)) {
    const port = await bind(server, formatRpcAddress(address), options.tls);
    return { address: { host: address.host, port }, release: async () => {} };
  }
  formatRpcAddress(address);
  await mkdir(dirname(address.path), { recursive: true });
  if (await answers(address.path)) {
    throw new PantalaError('already-exists', `another program answers on ${address.path}`);
  }
  // Bound under another name and moved when its mode is right: nobody connects to a socket that is too open, and
  // what a killed process left behind is replaced in one step.
  const temporary = `${address.path}~`;
  await rm(temporary, { force: true });
  await bind(server, `unix:${temporary}`, options.tls);
  await chmod(temporary, options.mode ?? 0o660);
  await rename(temporary, address.path);
  const { ino } = await lstat(address.path);
  return {
    address,
    release: async () => {
      const now = await lstat(address.path).catch(() => undefined);
      if (now?.ino === ino) await rm(address.path, { force: true });
    },
  };
}

function bind(server: Server, address: string, tls: RpcTls | undefined): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, serverCredentials(tls), (error, port) => {
      if (error === null) resolve(port);
      else reject(new PantalaError('unavailable', `cannot listen on ${address}: ${error.message}`, { cause: error }));
    });
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const done = (result: boolean) => {
      socket.destroy();
      resolve(result);
    };
    socket.once('connect', () => done(true));
    socket.once('error', () => done(false));
  });
}

async function shutdown(server: Server, timeout: number): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(() => server.forceShutdown(), timeout);
    server.tryShutdown(() => {
      clearTimeout(timer);
      resolve();
    });
  });
  server.forceShutdown();
}
