import { lstatSync, rmSync } from 'node:fs';
import { chmod, mkdir, rename, rm } from 'node:fs/promises';
import type { Server } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { MAX_SOCKET_PATH, PantalaError } from '@pantala/base';

/** What `listen` adds to the path while the mode is not right yet. */
const TEMPORARY = '~';
/** Only for the user that the peer runs as: whoever opens the socket reads what is cached. */
const MODE = 0o600;

/**
 * Listens on a unix socket. What a killed process left there is replaced; a program that answers is not.
 *
 * @returns removes the socket, unless another process has put its own there
 * @throws `already-exists`, `unavailable`, `invalid-argument` for a path that is too long
 */
export async function listenOnSocket(server: Server, path: string): Promise<() => void> {
  if (Buffer.byteLength(path + TEMPORARY) > MAX_SOCKET_PATH) {
    throw new PantalaError(
      'invalid-argument',
      `the path of a unix socket has ${MAX_SOCKET_PATH} bytes at most: ${path}`,
    );
  }
  try {
    await mkdir(dirname(path), { recursive: true });
    if (await answers(path)) throw new PantalaError('already-exists', `another program answers on ${path}`);
    await rm(path + TEMPORARY, { force: true });
    await listening(server, path + TEMPORARY);
    await chmod(path + TEMPORARY, MODE);
    await rename(path + TEMPORARY, path);
  } catch (error) {
    if (error instanceof PantalaError) throw error;
    throw new PantalaError('unavailable', `the proxy can't listen on ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  const { ino } = lstatSync(path);
  return () => {
    if (lstatSync(path, { throwIfNoEntry: false })?.ino === ino) rmSync(path, { force: true });
  };
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const done = (result: boolean) => {
      socket.destroy();
      resolve(result);
    };
    socket.once('connect', () => done(true));
    socket.once('error', () => done(false));
  });
}
