import { PantalaError } from '@pantala/base';

/** An origin answered with a status that is no content. `details.status` has it as well. */
export class OriginError extends PantalaError {
  readonly status: number;
  /** Of the answer, names in lower case: `www-authenticate` and `retry-after` tell what to do next. */
  readonly headers: Readonly<Record<string, string>>;

  constructor(url: URL, status: number, headers: Readonly<Record<string, string>>) {
    super('origin', `${withoutSecrets(url)} answered ${status}${HINTS.get(status) ?? ''}`, {
      details: { status, url: withoutSecrets(url) },
    });
    this.status = status;
    this.headers = headers;
  }
}

const HINTS: ReadonlyMap<number, string> = new Map([
  [401, ': credentials are missing or have expired'],
  [403, ': these credentials do not suffice, or a signed URL has expired'],
  [404, ': it is not there'],
  [416, ': the range lies outside the content'],
  [429, ': too many requests; try again later'],
]);

/** A URL for logs and messages: signed URLs have secrets in their query. */
export function withoutSecrets(url: URL): string {
  return `${url.origin}${url.pathname}${url.search === '' ? '' : '?…'}`;
}
