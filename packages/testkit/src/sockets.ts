import type { Socket } from 'node:net';

/** Until a socket takes more, or is closed. */
export function drained(socket: Socket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const finish = (): void => {
    socket.off('drain', finish);
    socket.off('close', finish);
    resolve();
  };
  socket.once('drain', finish);
  socket.once('close', finish);
  return promise;
}
