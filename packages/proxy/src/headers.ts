import type { IncomingMessage } from 'node:http';
import { MIN_PIECE_LENGTH, PantalaError } from '@pantala/base';

/** Meaningful between two neighbours only (RFC 9110 §7.6.1), and so never passed on. */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** Decided anew for each request that this proxy makes, or answered by it. */
const OWN_OF_A_REQUEST = new Set(['host', 'expect']);

/** What only concerns one reading of a task, not the fetching of it. */
const OF_ONE_READING = new Set([
  'accept-encoding',
  'content-length',
  'if-match',
  'if-modified-since',
  'if-none-match',
  'if-range',
  'if-unmodified-since',
  'range',
]);

/** Of a stored answer: what this proxy writes itself. */
const OWN_OF_AN_ANSWER = new Set(['accept-ranges', 'content-length', 'content-range', 'date', 'set-cookie']);

function namedByConnection(connection: string | undefined): ReadonlySet<string> | undefined {
  if (connection === undefined || /^\s*(keep-alive|close)?\s*$/i.test(connection)) return undefined;
  return new Set(connection.split(',').map((name) => name.trim().toLowerCase()));
}

/** A request's headers as they go to the origin: spelling and order of the client, nothing between neighbours. */
export function forwardedRequestHeaders(req: IncomingMessage): string[] {
  const named = namedByConnection(req.headers.connection);
  const kept: string[] = [];
  const { rawHeaders } = req;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] as string;
    const lower = name.toLowerCase();
    if (HOP_BY_HOP.has(lower) || OWN_OF_A_REQUEST.has(lower) || lower.startsWith('x-dragonfly-')) continue;
    if (named?.has(lower) === true) continue;
    kept.push(name, rawHeaders[index + 1] as string);
  }
  return kept;
}

/** A request's headers as the origin of its task gets them, names in lower case; `identity` is the only encoding. */
export function taskRequestHeaders(req: IncomingMessage): Record<string, string> {
  const named = namedByConnection(req.headers.connection);
  const kept: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const name in req.headers) {
    if (HOP_BY_HOP.has(name) || OWN_OF_A_REQUEST.has(name) || OF_ONE_READING.has(name)) continue;
    if (name.startsWith('x-dragonfly-') || named?.has(name) === true) continue;
    const value = req.headers[name];
    if (value !== undefined) kept[name] = typeof value === 'string' ? value : value.join(', ');
  }
  kept['accept-encoding'] = 'identity';
  return kept;
}

/** An origin's answer as it goes to the client. */
export function forwardedResponseHeaders(headers: readonly string[]): string[] {
  let named: ReadonlySet<string> | undefined;
  for (let index = 0; index < headers.length; index += 2) {
    if (headers[index]?.toLowerCase() === 'connection') named = namedByConnection(headers[index + 1]);
  }
  const kept: string[] = [];
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index] as string;
    const lower = name.toLowerCase();
    if (HOP_BY_HOP.has(lower) || lower.startsWith('x-dragonfly-') || named?.has(lower) === true) continue;
    kept.push(name, headers[index + 1] as string);
  }
  return kept;
}

/** The stored answer's headers that every reading of the task gets; names and values in turn. */
export function storedResponseHeaders(headers: Readonly<Record<string, string>>): string[] {
  return Object.entries(headers)
    .filter(([name]) => !HOP_BY_HOP.has(name) && !OWN_OF_AN_ANSWER.has(name) && !name.startsWith('x-dragonfly-'))
    .flat();
}

/** What a client says in `X-Dragonfly-*` about its request, in the names of both generations. */
export interface Directives {
  readonly tag: string | undefined;
  readonly application: string | undefined;
  readonly priority: number | undefined;
  readonly filteredQueryParams: readonly string[] | undefined;
  readonly useP2p: boolean;
  readonly prefetch: boolean | undefined;
  readonly pieceLength: number | undefined;
  readonly contentForTaskId: string | undefined;
  readonly outputPath: string | undefined;
  readonly forceHardLink: boolean;
}

/** Characters of any one value: they become part of identifiers and log lines. */
const MAX_DIRECTIVE_LENGTH = 4096;

/** Of a request that says nothing of itself, which most do. */
export const NO_DIRECTIVES: Directives = {
  tag: undefined,
  application: undefined,
  priority: undefined,
  filteredQueryParams: undefined,
  useP2p: false,
  prefetch: undefined,
  pieceLength: undefined,
  contentForTaskId: undefined,
  outputPath: undefined,
  forceHardLink: false,
};

/** `NO_DIRECTIVES` itself when there is no `X-Dragonfly-*` at all. @throws `invalid-argument` for a value without meaning */
export function directivesOf(req: IncomingMessage): Directives {
  if (!saysSomething(req.rawHeaders)) return NO_DIRECTIVES;
  const value = (name: string): string | undefined => {
    const text = req.headers[`x-dragonfly-${name}`];
    if (typeof text !== 'string' || text === '') return undefined;
    if (text.length > MAX_DIRECTIVE_LENGTH) {
      throw new PantalaError(
        'invalid-argument',
        `X-Dragonfly-${name} has more than ${MAX_DIRECTIVE_LENGTH} characters`,
      );
    }
    return text;
  };
  const priority = Number.parseInt(value('priority') ?? '', 10);
  return {
    tag: value('tag'),
    application: value('application'),
    priority: Number.isNaN(priority) ? undefined : priority,
    filteredQueryParams: list(value('filtered-query-params'), ',') ?? list(value('filter'), '&'),
    useP2p: truth(value('use-p2p')) === true,
    prefetch: truth(value('prefetch')),
    pieceLength: pieceLength(value('piece-length')),
    contentForTaskId: value('content-for-calculating-task-id'),
    outputPath: value('output-path'),
    forceHardLink: truth(value('force-hard-link')) === true,
  };
}

function saysSomething(rawHeaders: readonly string[]): boolean {
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] as string;
    if ((name.startsWith('X') || name.startsWith('x')) && name.toLowerCase().startsWith('x-dragonfly-')) return true;
  }
  return false;
}

function list(text: string | undefined, separator: string): string[] | undefined {
  const names = text?.split(separator).map((name) => name.trim());
  return names?.filter((name) => name !== '');
}

function truth(text: string | undefined): boolean | undefined {
  const lower = text?.toLowerCase();
  return lower === 'true' ? true : lower === 'false' ? false : undefined;
}

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 1000,
  kb: 1000,
  m: 1e6,
  mb: 1e6,
  g: 1e9,
  gb: 1e9,
  ki: 1024,
  kib: 1024,
  mi: 1024 ** 2,
  mib: 1024 ** 2,
  gi: 1024 ** 3,
  gib: 1024 ** 3,
};

function pieceLength(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const match = /^\s*(\d{1,15})\s*([a-z]{0,3})\s*$/i.exec(text);
  const length = Number(match?.[1]) * (UNITS[match?.[2]?.toLowerCase() ?? '?'] ?? Number.NaN);
  if (!Number.isSafeInteger(length) || length < MIN_PIECE_LENGTH) {
    throw new PantalaError('invalid-argument', `X-Dragonfly-Piece-Length "${text}" is no size of at least 4MiB`);
  }
  return length;
}

/** The trace id of a W3C `traceparent`; undefined when there is none that is valid. */
export function traceIdOf(req: IncomingMessage): string | undefined {
  const { traceparent } = req.headers;
  if (traceparent === undefined) return undefined;
  const match = /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}/.exec(String(traceparent));
  const id = match?.[1];
  return id === undefined || /^0+$/.test(id) ? undefined : id;
}
