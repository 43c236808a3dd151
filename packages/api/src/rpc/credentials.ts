import { isIP } from 'node:net';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { ChannelCredentials, type ChannelOptions, ServerCredentials } from '@grpc/grpc-js';
import type { RpcAddress } from './address.ts';

/** PEM files' contents for mutual TLS: both sides show a certificate that `ca` has signed. */
export interface RpcTls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export function serverCredentials(tls: RpcTls | undefined): ServerCredentials {
  if (tls === undefined) return ServerCredentials.createInsecure();
  return ServerCredentials.createSsl(
    Buffer.from(tls.ca),
    [{ private_key: Buffer.from(tls.key), cert_chain: Buffer.from(tls.cert) }],
    true,
  );
}

export function channelCredentials(tls: RpcTls | undefined, address: RpcAddress): ChannelCredentials {
  if (tls === undefined) return ChannelCredentials.createInsecure();
  const verify = isIpAddress(address)
    ? {
        checkServerIdentity: (_: string, certificate: PeerCertificate) =>
          checkServerIdentity(address.host, certificate),
      }
    : undefined;
  return ChannelCredentials.createSsl(Buffer.from(tls.ca), Buffer.from(tls.key), Buffer.from(tls.cert), verify);
}

/**
 * What grpc-js has to be told so that it reaches an address by TLS: it puts the host into the server name of the
 * handshake, which Node refuses for IP addresses. The certificate is checked against the address itself.
 */
export function tlsChannelOptions(tls: RpcTls | undefined, address: RpcAddress): ChannelOptions {
  return tls !== undefined && isIpAddress(address) ? { 'grpc.ssl_target_name_override': 'localhost' } : {};
}

function isIpAddress(address: RpcAddress): address is { readonly host: string; readonly port: number } {
  return 'host' in address && isIP(address.host) !== 0;
}
