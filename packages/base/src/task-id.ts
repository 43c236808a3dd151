import { randomUUID } from 'node:crypto';
import { sha256Hex } from './digest.ts';
import { PantalaError } from './errors.ts';

/**
 * Query parameters that say who asks or until when, not what is asked for: they are no part of a task's id unless a
 * rule or request names others. Upstream's list.
 */
export const DEFAULT_FILTERED_QUERY_PARAMS: readonly string[] = [
  'X-Amz-Algorithm',
  'X-Amz-Credential',
  'X-Amz-Date',
  'X-Amz-Expires',
  'X-Amz-SignedHeaders',
  'X-Amz-Signature',
  'X-Amz-Security-Token',
  'X-Amz-User-Agent',
  'X-Goog-Algorithm',
  'X-Goog-Credential',
  'X-Goog-Date',
  'X-Goog-Expires',
  'X-Goog-SignedHeaders',
  'X-Goog-Signature',
  'OSSAccessKeyId',
  'Expires',
  'Signature',
  'SecurityToken',
  'AccessKeyId',
  'X-Obs-Date',
  'X-Obs-Security-Token',
  'q-sign-algorithm',
  'q-ak',
  'q-sign-time',
  'q-key-time',
  'q-header-list',
  'q-url-param-list',
  'q-signature',
  'x-cos-security-token',
  'ns',
];

/** What a task's id depends on. */
export interface TaskIdentity {
  readonly url: string;
  readonly tag?: string | undefined;
  readonly application?: string | undefined;
  readonly revision?: string | undefined;
  /** Only where the caller asked for a length of its own. */
  readonly pieceLength?: number | undefined;
  /** Content that stands for the task: the id is its SHA-256. */
  readonly contentForTaskId?: string | undefined;
  /** Undefined: DEFAULT_FILTERED_QUERY_PARAMS. */
  readonly filteredQueryParams?: readonly string[] | undefined;
}

const BLOB_URL = /^[a-z][a-z0-9+.-]*:\/\/[^?#]*\/v2\/[^?#]*\/blobs\/sha256:([0-9a-f]{64})(?:[?#].*)?$/i;

/** The SHA-256 that a registry's blob URL names, in lower-case hex; undefined for any other URL. */
export function blobDigestOfUrl(url: string): string | undefined {
  return BLOB_URL.exec(url)?.[1]?.toLowerCase();
}

const TASK_ID = /^[0-9a-f]{64}$/;

export function isTaskId(text: string): boolean {
  return TASK_ID.test(text);
}

/**
 * The id of a task, 64 lower-case hex digits. A blob that is named by its sha256 has that as its id, from whatever
 * registry host it is asked; everything else, and what names a tag, an application or a content id, has upstream's.
 *
 * @throws `invalid-argument` when the URL is none
 */
export function taskId(identity: TaskIdentity): string {
  const digest = blobDigestOfUrl(identity.url);
  const named = identity.tag || identity.application || identity.contentForTaskId;
  return digest === undefined || named ? taskIdV2(identity) : digest;
}

/**
 * Upstream's task id of version 2: SHA-256 of the content that stands for it, else of the URL without its filtered
 * query parameters, tag, application, revision, piece length and the word STANDARD, one after the other.
 *
 * @throws `invalid-argument` when the URL is none
 */
export function taskIdV2(identity: TaskIdentity): string {
  if (identity.contentForTaskId) return sha256Hex(identity.contentForTaskId);
  const { tag = '', application = '', revision = '', pieceLength } = identity;
  const url = filterQuery(identity.url, identity.filteredQueryParams ?? DEFAULT_FILTERED_QUERY_PARAMS);
  return sha256Hex(`${url}${tag}${application}${revision}${pieceLength ?? ''}STANDARD`);
}

/**
 * A URL without some of its query parameters; the rest stays in its order, form-encoded anew. A bare host loses its
 * slash.
 *
 * @throws `invalid-argument` when it is no URL
 */
export function filterQuery(text: string, filtered: readonly string[]): string {
  const url = URL.parse(text);
  if (url === null) throw new PantalaError('invalid-argument', `"${text.slice(0, 200)}" is no absolute URL`);
  const kept = [...url.searchParams].filter(([name]) => !filtered.includes(name));
  url.search = new URLSearchParams(kept).toString();
  return url.pathname === '/' && url.href.endsWith('/') ? url.href.slice(0, -1) : url.href;
}

export interface HostIdentity {
  readonly ip: string;
  readonly hostname: string;
  readonly seed: boolean;
}

/** Upstream's id of a host. */
export function hostId(host: HostIdentity): string {
  return `${host.ip}-${host.hostname}${host.seed ? '-seed' : ''}`;
}

/** Upstream's id of one peer: of one host's part in one task. */
export function peerId(host: HostIdentity): string {
  return `${host.ip}-${host.hostname}-${randomUUID()}${host.seed ? '-seed' : ''}`;
}

/** The peer id that the "peer task done" line of the log carries: `<ip>-<pid>-<uuid>`. */
export function logPeerId(ip: string): string {
  return `${ip}-${process.pid}-${randomUUID()}`;
}
