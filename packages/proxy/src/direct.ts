import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';

/** A request that is passed on as it is. */
export interface DirectRequest {
  readonly method: string;
  readonly url: URL;
  /** Names and values in turn, in the order and spelling of the client; without hop-by-hop headers and `host`. */
  readonly headers: readonly string[];
  readonly body?: Readable;
  readonly signal: AbortSignal;
}

export interface DirectResponse {
  readonly status: number;
  readonly statusText: string;
  /** Names and values in turn, as they came. */
  readonly headers: readonly string[];
  /** As it came: not decompressed. */
  readonly body: Readable;
}

/** The ways out of this machine; every one goes through the checks of addresses. Redirects are not followed. */
export interface DirectClient {
  /** @throws `permission-denied` for an address that must not be reached; `unavailable`, `deadline-exceeded` */
  request(request: DirectRequest): Promise<DirectResponse>;
  /** A TCP connection for a blind tunnel. @throws as `request` does */
  connect(target: { readonly host: string; readonly port: number; readonly signal: AbortSignal }): Promise<Socket>;
}
