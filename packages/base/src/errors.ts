/**
 * The one error type of Pantala. A code from a closed union says what kind of failure it is; the table below says
 * how each edge (gRPC, HTTP, a command's exit status) shows it.
 */

export type ErrorCode =
  | 'invalid-argument'
  | 'out-of-range'
  | 'not-found'
  | 'already-exists'
  | 'unauthenticated'
  | 'permission-denied'
  | 'failed-precondition'
  | 'resource-exhausted'
  | 'disk-full'
  | 'unimplemented'
  | 'unavailable'
  | 'deadline-exceeded'
  | 'cancelled'
  | 'data-loss'
  | 'origin'
  | 'internal';

/** How an error shows at each edge. `exit` follows sysexits.h so that scripts can tell bad input from a failure. */
export interface ErrorSurface {
  /** Status code of gRPC (https://grpc.github.io/grpc/core/md_doc_statuscodes.html). */
  readonly grpc: number;
  readonly http: number;
  readonly exit: number;
}

export const ERROR_SURFACES: Readonly<Record<ErrorCode, ErrorSurface>> = {
  'invalid-argument': { grpc: 3, http: 400, exit: 64 },
  'out-of-range': { grpc: 11, http: 416, exit: 65 },
  'not-found': { grpc: 5, http: 404, exit: 66 },
  'already-exists': { grpc: 6, http: 409, exit: 73 },
  unauthenticated: { grpc: 16, http: 401, exit: 77 },
  'permission-denied': { grpc: 7, http: 403, exit: 77 },
  'failed-precondition': { grpc: 9, http: 412, exit: 78 },
  'resource-exhausted': { grpc: 8, http: 429, exit: 75 },
  'disk-full': { grpc: 8, http: 507, exit: 74 },
  unimplemented: { grpc: 12, http: 501, exit: 69 },
  unavailable: { grpc: 14, http: 503, exit: 69 },
  'deadline-exceeded': { grpc: 4, http: 504, exit: 75 },
  cancelled: { grpc: 1, http: 499, exit: 130 },
  'data-loss': { grpc: 15, http: 502, exit: 76 },
  origin: { grpc: 14, http: 502, exit: 69 },
  internal: { grpc: 13, http: 500, exit: 70 },
};

/** Values that logs and wire formats can carry. */
export type ErrorDetails = Readonly<Record<string, string | number | boolean | undefined>>;

export interface PantalaErrorOptions {
  readonly cause?: unknown;
  readonly details?: ErrorDetails;
}

/** What happened, to what, and what to do next stand in the message; `details` has the same facts for programs. */
export class PantalaError extends Error {
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, options: PantalaErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'PantalaError';
    this.code = code;
    this.details = options.details ?? {};
  }

  /**
   * Anything thrown, as a PantalaError: itself, an aborted signal as `cancelled` or `deadline-exceeded`, a system
   * error by its errno, the rest as `internal`.
   */
  static from(thrown: unknown): PantalaError {
    if (thrown instanceof PantalaError) return thrown;
    if (!(thrown instanceof Error)) return new PantalaError('internal', String(thrown), { cause: thrown });
    if (thrown.name === 'AbortError') return new PantalaError('cancelled', thrown.message, { cause: thrown });
    if (thrown.name === 'TimeoutError') return new PantalaError('deadline-exceeded', thrown.message, { cause: thrown });
    const errno = (thrown as NodeJS.ErrnoException).code;
    return new PantalaError(codeOfErrno(errno), thrown.message, {
      cause: thrown,
      ...(errno === undefined ? {} : { details: { errno } }),
    });
  }
}

function codeOfErrno(errno: string | undefined): ErrorCode {
  switch (errno) {
    case 'ENOSPC':
    case 'EDQUOT':
      return 'disk-full';
    case 'ENOENT':
      return 'not-found';
    case 'EEXIST':
    case 'ENOTEMPTY':
      return 'already-exists';
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return 'permission-denied';
    // What lies in a place is not of the kind that is wanted there.
    case 'EISDIR':
    case 'ENOTDIR':
    case 'ELOOP':
    case 'ENAMETOOLONG':
      return 'failed-precondition';
    case 'EMFILE':
    case 'ENFILE':
    case 'ENOMEM':
      return 'resource-exhausted';
    case 'ETIMEDOUT':
      return 'deadline-exceeded';
    case 'ECONNREFUSED':
    case 'ECONNRESET':
    case 'EPIPE':
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return 'unavailable';
    default:
      return 'internal';
  }
}

/** Throws a `cancelled` (or the signal's own) error when `signal` is aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw PantalaError.from(signal.reason);
}
