import { type ChannelOptions, Client } from '@grpc/grpc-js';
import { formatRpcAddress, type RpcAddress } from './address.ts';
import { type CallOptions, invocation } from './client-methods.ts';
import { channelCredentials, type RpcTls, tlsChannelOptions } from './credentials.ts';
import type { MethodDescription, MethodsOf, Received, Sent, Service } from './definition.ts';
import {
  FIRST_RECONNECT_PAUSE,
  FLOW_CONTROL_WINDOW,
  KEEPALIVE_INTERVAL,
  KEEPALIVE_TIMEOUT,
  MAX_MESSAGE_LENGTH,
  MAX_RECONNECT_PAUSE,
} from './limits.ts';

export interface ClientOptions {
  /** Mutual TLS; plain HTTP/2 when left out. */
  readonly tls?: RpcTls | undefined;
  /** Milliseconds for unary calls that name no deadline of their own; none when left out. */
  readonly deadline?: number;
  /** Milliseconds between pings while calls are open; KEEPALIVE_INTERVAL when left out. */
  readonly keepaliveInterval?: number;
  /** Milliseconds that the answer to a ping may take; KEEPALIVE_TIMEOUT when left out. */
  readonly keepaliveTimeout?: number;
  /** Bytes of a received message; MAX_MESSAGE_LENGTH when left out. */
  readonly maxMessageLength?: number;
}

/**
 * The function that calls a method. Failures are `RpcError`s, or the signal's reason. Streams start at once, are read
 * and written only as fast as both sides go along, and are cancelled when their reader stops before the end.
 */
export type ClientMethod<M extends MethodDescription> = M extends { methodKind: 'unary' }
  ? (request: Sent<M['input']>, options?: CallOptions) => Promise<Received<M['output']>>
  : M extends { methodKind: 'server_streaming' }
    ? (request: Sent<M['input']>, options?: CallOptions) => AsyncGenerator<Received<M['output']>, void, undefined>
    : M extends { methodKind: 'client_streaming' }
      ? (requests: AsyncIterable<Sent<M['input']>>, options?: CallOptions) => Promise<Received<M['output']>>
      : (
          requests: AsyncIterable<Sent<M['input']>>,
          options?: CallOptions,
        ) => AsyncGenerator<Received<M['output']>, void, undefined>;

/** A service as its callers see it. Disposing it closes its channel; clients of one address share connections. */
export type RpcClient<S extends Service> = { readonly [K in keyof MethodsOf<S>]: ClientMethod<MethodsOf<S>[K]> } & {
  readonly address: RpcAddress;
} & Disposable;

/** A client of `service` at `address`. Connects with the first call; a call waits for the connection or its failure. */
export function createClient<S extends Service>(
  service: S,
  address: RpcAddress,
  options: ClientOptions = {},
): RpcClient<S> {
  const client = new Client(
    formatRpcAddress(address),
    channelCredentials(options.tls, address),
    channelOptions(address, options),
  );
  const methods: Record<string, unknown> = {};
  for (const method of service.methods) methods[method.localName] = invocation(client, method, options.deadline);
  return { ...methods, address, [Symbol.dispose]: () => client.close() } as RpcClient<S>;
}

function channelOptions(address: RpcAddress, options: ClientOptions): ChannelOptions {
  return {
    // The path of a socket is no valid :authority; servers on nghttp2 refuse it.
    ...('path' in address ? { 'grpc.default_authority': 'localhost' } : {}),
    ...tlsChannelOptions(options.tls, address),
    'grpc.keepalive_time_ms': options.keepaliveInterval ?? KEEPALIVE_INTERVAL,
    'grpc.keepalive_timeout_ms': options.keepaliveTimeout ?? KEEPALIVE_TIMEOUT,
    'grpc.max_receive_message_length': options.maxMessageLength ?? MAX_MESSAGE_LENGTH,
    'grpc.max_send_message_length': -1,
    'grpc.initial_reconnect_backoff_ms': FIRST_RECONNECT_PAUSE,
    'grpc.min_reconnect_backoff_ms': FIRST_RECONNECT_PAUSE,
    'grpc.max_reconnect_backoff_ms': MAX_RECONNECT_PAUSE,
    // Peers are reached directly, whatever proxy the environment names for the web.
    'grpc.enable_http_proxy': 0,
    'grpc.service_config_disable_resolution': 1,
    'grpc.enable_channelz': 0,
    'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW,
  };
}
