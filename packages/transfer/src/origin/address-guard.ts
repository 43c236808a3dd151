import { lookup } from 'node:dns/promises';
import { BlockList, isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { abortable, PantalaError } from '@pantala/base';
import type { AddressRules, ListenerAddress } from './options.ts';

/** An address that was checked; connections go to exactly this one. */
export interface CheckedAddress {
  readonly address: string;
  readonly port: number;
}

/** Where cloud providers keep machine credentials: 169.254.0.0/16 (RFC 3927) and fe80::/10 (RFC 4291). */
const LINK_LOCAL: readonly string[] = ['169.254.0.0/16', 'fe80::/10'];

/** More addresses of one name are not tried. */
const MAX_ADDRESSES = 16;

/** Resolves names and decides which of their addresses may be reached. */
export class AddressGuard {
  readonly #allow: BlockList | undefined;
  readonly #deny: BlockList;
  readonly #ownListeners: () => readonly ListenerAddress[];

  /** @throws `invalid-argument` for a rule that is no address and no CIDR block */
  constructor(rules: AddressRules) {
    this.#allow = rules.allow === undefined ? undefined : blockList(rules.allow);
    this.#deny = blockList([...LINK_LOCAL, ...(rules.deny ?? [])]);
    this.#ownListeners = rules.ownListeners ?? (() => []);
  }

  /**
   * The addresses of a name (or literal) that may be reached, in the resolver's order.
   *
   * @throws `permission-denied` when all of them are forbidden; `unavailable` when the name has none
   */
  async resolve(host: string, port: number, signal: AbortSignal | undefined): Promise<CheckedAddress[]> {
    const name = host.startsWith('[') ? host.slice(1, -1) : host;
    const addresses = isIP(name) === 0 ? await lookUp(name, signal) : [name];
    const checked: CheckedAddress[] = [];
    let refusal: string | undefined;
    for (const address of addresses.slice(0, MAX_ADDRESSES)) {
      const reason = this.#refusal(plainAddress(address), port);
      if (reason === undefined) checked.push({ address, port });
      else refusal ??= reason;
    }
    if (checked.length > 0) return checked;
    if (refusal === undefined) throw new PantalaError('unavailable', `${host} has no address`);
    throw new PantalaError('permission-denied', `${host}:${port} must not be reached: ${refusal}`, {
      details: { host, port },
    });
  }

  #refusal(address: string, port: number): string | undefined {
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
    if (this.#deny.check(address, family)) return `${address} is denied`;
    if (this.#allow?.check(address, family) === false) return `${address} is not in the list of allowed addresses`;
    const own = this.#ownListeners().some((listener) => listener.port === port && reaches(address, listener.host));
    return own ? `${address}:${port} is a listener of this program` : undefined;
  }
}

async function lookUp(name: string, signal: AbortSignal | undefined): Promise<string[]> {
  try {
    const found = await abortable(lookup(name, { all: true, order: 'verbatim' }), signal);
    return found.map(({ address }) => address);
  } catch (error) {
    if (signal?.aborted === true) throw error;
    throw new PantalaError('unavailable', `the name ${name} cannot be resolved`, { cause: error });
  }
}

/** IPv4 in its own form, however it was wrapped: mapped (RFC 4291 §2.5.5.2) or for NAT64 (RFC 6052). */
export function plainAddress(address: string): string {
  if (isIP(address) !== 6) return address;
  const canonical = new URL(`http://[${address.replace(/%.*$/, '')}]/`).hostname.slice(1, -1);
  const match = /^(?:::ffff:|64:ff9b::)(?:([0-9a-f]{1,4}):)?([0-9a-f]{1,4})$/.exec(canonical);
  if (match === null) return canonical;
  const high = Number.parseInt(match[1] ?? '0', 16);
  const low = Number.parseInt(match[2] as string, 16);
  return `${high >> 8}.${high & 0xff}.${low >> 8}.${low & 0xff}`;
}

function reaches(address: string, listenerHost: string): boolean {
  const host = listenerHost === 'localhost' ? '127.0.0.1' : plainAddress(listenerHost);
  if (address === host) return true;
  const local = isLocal(address);
  // 0.0.0.0 and :: as a target mean this machine; as a listener they mean all of its addresses.
  if (host === '0.0.0.0' || host === '::') return local;
  return (address === '0.0.0.0' || address === '::') && isLocal(host);
}

function isLocal(address: string): boolean {
  if (address.startsWith('127.') || address === '::1' || address === '0.0.0.0' || address === '::') return true;
  return Object.values(networkInterfaces()).some((list) => list?.some((one) => one.address === address));
}

function blockList(rules: readonly string[]): BlockList {
  const list = new BlockList();
  for (const rule of rules) {
    const [address = '', bits, ...rest] = rule.split('/');
    const family = isIP(address);
    const prefix = bits === undefined ? (family === 6 ? 128 : 32) : Number(bits);
    const valid = family !== 0 && rest.length === 0 && Number.isInteger(prefix) && prefix >= 0 && bits !== '';
    if (!valid || prefix > (family === 6 ? 128 : 32)) {
      throw new PantalaError('invalid-argument', `"${rule}" is no address and no CIDR block such as 10.0.0.0/8`);
    }
    list.addSubnet(address, prefix, family === 6 ? 'ipv6' : 'ipv4');
  }
  return list;
}
