import { constants } from 'node:os';
import { PantalaError } from '@pantala/base';

/** Why a call failed: number and name of `errno`. */
export interface Errno {
  readonly number: number;
  /** `EAGAIN`, or `errno <number>` where Node knows no name. */
  readonly name: string;
}

/** Those of Node, and what it leaves out. */
const NAMES = new Map([
  ...Object.entries(constants.errno).map(([name, number]) => [number, name] as const),
  [15, 'ENOTBLK'],
]);

export function errnoOf(number: number): Errno {
  return { number, name: NAMES.get(number) ?? `errno ${number}` };
}

/** A system call that failed: `details` has the call, its arguments and the errno's name. */
export class LinuxError extends PantalaError {
  readonly errno: Errno;

  constructor(call: string, args: readonly (string | number)[], errno: Errno) {
    const shown = args.join(', ');
    const cause = Object.assign(new Error(errno.name), { code: errno.name });
    super(PantalaError.from(cause).code, `${call}(${shown}) failed: ${errno.name}`, {
      cause,
      details: { call, arguments: shown, errno: errno.name },
    });
    this.name = 'LinuxError';
    this.errno = errno;
  }
}
