import { PantalaError } from '@pantala/base';
import { DOCKER_HUB } from './registry-host.ts';

/** Characters of domain and path together: the limit that Docker's own parser has. */
const MAX_NAME_LENGTH = 255;
/** Characters of a whole reference: name, tag (128) and the longest digest in use (sha512), with room. */
const MAX_REFERENCE_LENGTH = 1024;

/** A name of an image, complete. */
export interface Reference {
  /** As it is written in names (`docker.io`, `[::1]:5000`); `registryHost` says where to connect. */
  readonly domain: string;
  readonly path: string;
  readonly tag: string | undefined;
  /** `<algorithm>:<hex>`. */
  readonly digest: string | undefined;
}

const COMPONENT = '[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?';
const DOMAIN = new RegExp(`^(?:${COMPONENT}(?:\\.${COMPONENT})*|\\[[0-9A-Fa-f:.]{2,45}\\])(?::[0-9]{1,5})?$`);
const PATH = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^\w[\w.-]{0,127}$/;
const DIGEST = /^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/;
const SHA256_DIGEST = /^sha256:[0-9a-f]{64}$/;
const SHA512_DIGEST = /^sha512:[0-9a-f]{128}$/;

/**
 * Parses a reference by the grammar of distribution/reference, with Docker's defaults: no domain means `docker.io`,
 * a single component there lies below `library/`. A missing tag stays missing.
 *
 * @throws `invalid-argument` saying which part is wrong
 */
export function parseReference(text: string): Reference {
  if (text.length > MAX_REFERENCE_LENGTH) throw wrong(text, `has more than ${MAX_REFERENCE_LENGTH} characters`);
  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  const named = at < 0 ? text : text.slice(0, at);
  const colon = named.lastIndexOf(':');
  const tagged = colon > named.lastIndexOf('/');
  const tag = tagged ? named.slice(colon + 1) : undefined;
  const name = tagged ? named.slice(0, colon) : named;
  const { domain, path } = splitName(name);
  if (name === '') throw wrong(text, 'has no name');
  if (/^[0-9a-f]{64}$/.test(name)) throw wrong(text, 'is an identifier of 64 hex digits, not a name');
  if (!DOMAIN.test(domain)) throw wrong(text, `names "${domain}", which is no host[:port]`);
  if (path !== path.toLowerCase()) throw wrong(text, 'has upper-case letters in its repository');
  if (!PATH.test(path)) throw wrong(text, `names "${path}", which is no repository`);
  if (domain.length + 1 + path.length > MAX_NAME_LENGTH)
    throw wrong(text, `names more than ${MAX_NAME_LENGTH} characters`);
  if (tag !== undefined && !TAG.test(tag)) throw wrong(text, `has the tag "${tag}", which is none`);
  if (digest !== undefined && !isDigest(digest)) throw wrong(text, `has the digest "${digest}", which is none`);
  return { domain, path, tag, digest };
}

/** Whether `text` may stand behind the `@` of a reference. sha256 and sha512 must have their length. */
export function isDigest(text: string): boolean {
  if (text.startsWith('sha256:')) return SHA256_DIGEST.test(text);
  if (text.startsWith('sha512:')) return SHA512_DIGEST.test(text);
  return DIGEST.test(text);
}

export function isTag(text: string): boolean {
  return TAG.test(text);
}

/** Whether `text` may be the repository part of a name. */
export function isRepository(text: string): boolean {
  return text.length <= MAX_NAME_LENGTH && PATH.test(text);
}

function splitName(name: string): { domain: string; path: string } {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  const isDomain = /[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase();
  const domain = isDomain ? first : DOCKER_HUB;
  const path = isDomain ? name.slice(slash + 1) : name;
  if (domain !== DOCKER_HUB && domain !== 'index.docker.io') return { domain, path };
  return { domain: DOCKER_HUB, path: path.includes('/') ? path : `library/${path}` };
}

/** `domain/path[:tag][@digest]`. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`;
  const digest = reference.digest === undefined ? '' : `@${reference.digest}`;
  return `${reference.domain}/${reference.path}${tag}${digest}`;
}

/** As people write it: without the domain and `library/` of Docker Hub. */
export function shortReference(reference: Reference): string {
  const full = formatReference(reference);
  if (reference.domain !== DOCKER_HUB) return full;
  const path = full.slice(DOCKER_HUB.length + 1);
  return reference.path.startsWith('library/') && reference.path.split('/').length === 2
    ? path.slice('library/'.length)
    : path;
}

/** What to ask the registry for: the digest where there is one, else the tag, else `latest`. */
export function manifestReference(reference: Reference): string {
  return reference.digest ?? reference.tag ?? 'latest';
}

function wrong(text: string, why: string): PantalaError {
  return new PantalaError('invalid-argument', `image reference "${text.slice(0, 200)}" ${why}`);
}
