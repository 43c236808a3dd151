import { create, fromBinary } from '@bufbuild/protobuf';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { Metadata, type ServiceError, type StatusObject, status } from '@grpc/grpc-js';
import { ERROR_SURFACES, type ErrorCode, PantalaError } from '@pantala/base';
import { type Backend, BackendSchema } from '../gen/errordetails/v2/errordetails_pb.ts';
import { StatusSchema } from '../gen/google/rpc/status_pb.ts';

/** Trailer with what a status says beyond code and message. */
const DETAILS_KEY = 'grpc-status-details-bin';

/** Bytes of a status message: trailers have to stay below the 16 KiB of headers that most HTTP/2 stacks accept. */
const MAX_STATUS_MESSAGE_LENGTH = 4096;

/** Bytes of the details trailer: beyond it, the origin's headers are left out. */
const MAX_DETAILS_LENGTH = 8192;

/** What a remote program answered instead of a result. */
export class RpcError extends PantalaError {
  /** Code of gRPC. */
  readonly status: number;
  /** What the origin said, where the remote program failed because of it. */
  readonly backend: Backend | undefined;

  constructor(code: ErrorCode, message: string, status: number, backend?: Backend, cause?: unknown) {
    super(code, message, {
      cause,
      details: backend?.statusCode === undefined ? {} : { status: backend.statusCode },
    });
    this.name = 'RpcError';
    this.status = status;
    this.backend = backend;
  }
}

const CODES = new Map<number, ErrorCode>();
for (const [code, surface] of Object.entries(ERROR_SURFACES)) {
  // The first code of a status is the general one: disk-full and origin have none of their own.
  if (!CODES.has(surface.grpc)) CODES.set(surface.grpc, code as ErrorCode);
}
CODES.set(status.UNKNOWN, 'internal');
CODES.set(status.ABORTED, 'unavailable');

/** The error of a call as grpc-js reports it, as a PantalaError. */
export function fromServiceError(error: ServiceError): RpcError {
  const backend = readBackend(error.metadata?.get(DETAILS_KEY)[0]);
  const code = backend === undefined ? (CODES.get(error.code) ?? 'internal') : 'origin';
  return new RpcError(code, error.details || error.message, error.code, backend, error);
}

/** Anything that a handler throws, as the status of its call. */
export function toStatus(thrown: unknown): StatusObject {
  const error = PantalaError.from(thrown);
  const metadata = new Metadata();
  const backend = backendOf(error);
  if (backend !== undefined) metadata.set(DETAILS_KEY, writeBackend(backend));
  const code = error instanceof RpcError ? error.status : ERROR_SURFACES[error.code].grpc;
  return { code, details: shortened(error.message, MAX_STATUS_MESSAGE_LENGTH), metadata };
}

function backendOf(error: PantalaError): Backend | undefined {
  if (error instanceof RpcError) return error.backend;
  const statusCode = error.details.status;
  if (error.code !== 'origin' || typeof statusCode !== 'number') return undefined;
  return create(BackendSchema, { message: error.message, statusCode, header: headersOf(error) });
}

function headersOf(error: PantalaError): Record<string, string> {
  if (!('headers' in error) || typeof error.headers !== 'object' || error.headers === null) return {};
  return Object.fromEntries(
    Object.entries(error.headers).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  );
}

/** Upstream's peers put the JSON of errordetails.v2.Backend there, with the field names of the .proto file. */
function writeBackend({ message, header, statusCode }: Backend): Buffer {
  const json = { message: shortened(message, MAX_STATUS_MESSAGE_LENGTH), header, status_code: statusCode };
  const bytes = Buffer.from(JSON.stringify(json));
  return bytes.length <= MAX_DETAILS_LENGTH ? bytes : Buffer.from(JSON.stringify({ ...json, header: {} }));
}

/** Reads upstream's JSON, and the google.rpc.Status that other gRPC programs put there. */
function readBackend(bytes: string | Buffer | undefined): Backend | undefined {
  if (!(bytes instanceof Buffer)) return undefined;
  try {
    if (bytes[0] === 0x7b) return backendOfJson(JSON.parse(bytes.toString()));
    for (const detail of fromBinary(StatusSchema, bytes).details) {
      const backend = anyUnpack(detail, BackendSchema);
      if (backend !== undefined) return backend;
    }
  } catch {
    // Details are an addition to the status; ones that cannot be read change nothing.
  }
  return undefined;
}

function backendOfJson(json: unknown): Backend | undefined {
  if (typeof json !== 'object' || json === null) return undefined;
  const fields = json as { message?: unknown; header?: unknown; status_code?: unknown };
  const header = typeof fields.header === 'object' && fields.header !== null ? fields.header : {};
  return create(BackendSchema, {
    message: typeof fields.message === 'string' ? fields.message : '',
    header: Object.fromEntries(Object.entries(header).map(([name, value]) => [name, String(value)])),
    ...(Number.isInteger(fields.status_code) ? { statusCode: Number(fields.status_code) } : {}),
  });
}

function shortened(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}
