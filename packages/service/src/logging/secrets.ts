import { PantalaError } from '@pantala/base';

const HIDDEN = '[hidden]';

/** Levels of nesting of a field that are written; deeper ones are no context of a log line. */
const MAX_FIELD_DEPTH = 4;

const SECRET_KEY = /^(?:proxy-)?authorization$|cookie|password|passwd|secret|token|credential|signature/i;

/** Query parameters that sign an URL or carry a key, for the object stores that upstream knows. */
const SECRET_PARAMETER =
  /((?:^|[?&\s;,("'])(?:x-amz-(?:credential|signature|security-token)|x-goog-(?:credential|signature)|x-obs-security-token|x-cos-security-token|ossaccesskeyid|accesskeyid|awsaccesskeyid|signature|sig|securitytoken|q-ak|q-signature|token|access_token|password|api_key|key)=)[^&\s"']+/gi;
const SECRET_CREDENTIALS = /\b(bearer|basic)\s+[a-z0-9._~+/=-]{6,}/gi;
const USER_INFO = /(\b[a-z][a-z0-9+.-]*:\/\/)[^/\s@"']+@/gi;

/** A text without the values of signed parameters, credentials and user information. */
export function withoutSecrets(text: string): string {
  return text
    .replace(SECRET_PARAMETER, `$1${HIDDEN}`)
    .replace(SECRET_CREDENTIALS, `$1 ${HIDDEN}`)
    .replace(USER_INFO, `$1${HIDDEN}@`);
}

/** The value of a log field, as JSON can write it and without secrets. */
export function loggable(key: string, value: unknown, depth = 0): unknown {
  if (SECRET_KEY.test(key) && value !== undefined && typeof value !== 'boolean') return HIDDEN;
  if (typeof value === 'string') return withoutSecrets(value);
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
  if (value === null || typeof value !== 'object') return value;
  if (value instanceof Error) return loggableError(value, depth);
  if (depth >= MAX_FIELD_DEPTH) return '[deep]';
  if (value instanceof Uint8Array) return `[${value.length} bytes]`;
  if (Array.isArray(value)) return value.map((element) => loggable('', element, depth + 1));
  const entries = Object.entries(value).map(([name, inner]) => [name, loggable(name, inner, depth + 1)] as const);
  return Object.fromEntries(entries);
}

function loggableError(error: Error, depth: number): unknown {
  const { code } = PantalaError.from(error);
  const fields: Record<string, unknown> = { code, message: withoutSecrets(error.message) };
  // An error that nobody gave a code is a defect of ours: the stack says where.
  if (code === 'internal' && error.stack !== undefined) fields.stack = withoutSecrets(error.stack);
  if (error.cause !== undefined && depth < MAX_FIELD_DEPTH) fields.cause = loggable('', error.cause, depth + 1);
  return fields;
}
