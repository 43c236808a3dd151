import { type ErrorCode, PantalaError } from '@pantala/base';
import { WIRE_ERROR } from './packet.ts';

/** The code by which an error is told to another peer. */
export function wireCodeOf(error: PantalaError): number {
  switch (error.code) {
    case 'invalid-argument':
    case 'out-of-range':
      return WIRE_ERROR.invalidArgument;
    case 'not-found':
      return WIRE_ERROR.notFound;
    case 'resource-exhausted':
      return WIRE_ERROR.overloaded;
    default:
      return WIRE_ERROR.internal;
  }
}

const CODES: ReadonlyMap<number, ErrorCode> = new Map([
  [WIRE_ERROR.invalidArgument, 'invalid-argument'],
  [WIRE_ERROR.notFound, 'not-found'],
  [WIRE_ERROR.overloaded, 'resource-exhausted'],
]);

/** What another peer told, as an error here; codes that say nothing more become `unavailable`: ask somebody else. */
export function errorFromWire(code: number, message: string, peer: string): PantalaError {
  // Text from outside goes into logs: no control characters.
  const text = message.slice(0, 500).replaceAll(/\p{Cc}/gu, ' ');
  return new PantalaError(CODES.get(code) ?? 'unavailable', `${peer} answered: ${text}`, {
    details: { peer, wireCode: code },
  });
}
