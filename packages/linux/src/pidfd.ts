import { callNow, checked } from './libc.ts';

/** linux/net.h, asm-generic/socket.h; the same numbers on x86-64 and arm64. */
const SOL_SOCKET = 1;
const SO_PEERPIDFD = 77;

/**
 * A descriptor of a process: readable (poll) as soon as it has ended, whatever happens to its number.
 *
 * @throws LinuxError: ESRCH when there is none, also for one outside this PID namespace; `unimplemented`
 */
export function openProcess(pid: number): number {
  return checked('pidfd_open', [pid], callNow('pidfd_open', [pid, 0]));
}

/**
 * A descriptor of the process at the other end of a unix socket, even of another PID namespace (Linux 6.5).
 *
 * @throws LinuxError: ENOPROTOOPT before that; `unimplemented`
 */
export function openPeerProcess(socket: number): number {
  const value = new Int32Array(1);
  const length = new Uint32Array([4]);
  const result = callNow('getsockopt', [socket, SOL_SOCKET, SO_PEERPIDFD, value, length]);
  checked('getsockopt', [socket, 'SO_PEERPIDFD'], result);
  return value[0] as number;
}

/**
 * A copy of another process's descriptor.
 *
 * @param process from openProcess or openPeerProcess
 * @throws LinuxError: EPERM where one may not be traced by the other, EBADF when it has none of that number
 */
export function takeDescriptor(process: number, fd: number): number {
  return checked('pidfd_getfd', [process, fd], callNow('pidfd_getfd', [process, fd, 0]));
}
