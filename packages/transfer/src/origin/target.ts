import { PantalaError } from '@pantala/base';

/** Longest URL that is accepted; signed ones have about 2 KiB. */
const MAX_URL_LENGTH = 16 * 1024;

/** Headers of one connection, not of the request (RFC 9110 §7.6.1), and those that this client sets itself. */
const OWN_HEADERS: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'host',
  'content-length',
  'expect',
]);

/** Those that would turn an answer with content into another one, or choose another representation. */
const CONTENT_HEADERS: ReadonlySet<string> = new Set([
  'accept-encoding',
  'range',
  'if-range',
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
]);

/** Headers that prove who asks; they never follow a redirect to another scheme, host or port. */
export const CREDENTIAL_HEADERS: ReadonlySet<string> = new Set([
  'authorization',
  'cookie',
  'cookie2',
  'proxy-authorization',
]);

/**
 * A URL that this program may ask for.
 *
 * @throws `invalid-argument` for other schemes, user names in the URL, or characters that a URL cannot have
 */
export function parseTarget(text: string, base?: URL): URL {
  if (text.length > MAX_URL_LENGTH) throw new PantalaError('invalid-argument', 'a URL has more than 16 KiB');
  // The parser would drop them silently.
  if (/[\p{Cc} ]/u.test(text)) {
    throw new PantalaError(
      'invalid-argument',
      `a URL has spaces or control characters: ${JSON.stringify(text.slice(0, 100))}`,
    );
  }
  if (!URL.canParse(text, base)) throw new PantalaError('invalid-argument', `"${text.slice(0, 200)}" is no URL`);
  const url = new URL(text, base);
  if (url.username !== '' || url.password !== '') {
    throw new PantalaError('invalid-argument', `the URL of ${url.host} has a user name: give credentials as headers`);
  }
  url.hash = '';
  return url;
}

/** What is sent of a caller's headers; names in lower case. @throws `invalid-argument` for CR, LF or NUL */
export function contentHeaders(headers: Readonly<Record<string, string>>): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    const lower = name.toLowerCase();
    checkHeader(lower, value);
    if (!OWN_HEADERS.has(lower) && !CONTENT_HEADERS.has(lower)) kept[lower] = value;
  }
  return kept;
}

/** The same for a request that is passed on: names and values in turn, spelling and order kept. */
export function passedHeaders(headers: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const [name, value] = [headers[i] as string, headers[i + 1] as string];
    checkHeader(name, value);
    if (!OWN_HEADERS.has(name.toLowerCase())) kept.push(name, value);
  }
  return kept;
}

export function withoutCredentials(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !CREDENTIAL_HEADERS.has(name)));
}

function checkHeader(name: string, value: string): void {
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) {
    throw new PantalaError('invalid-argument', `${JSON.stringify(name.slice(0, 60))} is no name of a header`);
  }
  if (/[\r\n\0]/.test(value) || Buffer.from(value, 'latin1').toString('latin1') !== value) {
    throw new PantalaError('invalid-argument', `the value of header ${name} has characters that headers cannot have`);
  }
}
