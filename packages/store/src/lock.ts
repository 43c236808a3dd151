import { closeSync, constants, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { PantalaError } from '@pantala/base';
import { tryLock, whyMissing } from '@pantala/linux';

/**
 * Keeps two daemons from opening one directory. The lock belongs to the process by flock(2) and dies with it; the
 * number in the file is for people, and decides only where there is no flock.
 *
 * @throws `failed-precondition` that names the process that has it
 */
export function lockDirectory(path: string): Disposable {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  const holder = Number.parseInt(readFileSync(fd, 'utf8'), 10);
  const free = whyMissing('flock') === undefined ? tryLock(fd) : !isAlive(holder);
  if (!free) {
    closeSync(fd);
    throw new PantalaError(
      'failed-precondition',
      `${path} is held by process ${Number.isNaN(holder) ? 'unknown' : holder}: one store is opened by one daemon; stop it or choose another directory`,
      { details: { path, pid: holder } },
    );
  }
  ftruncateSync(fd);
  writeSync(fd, `${process.pid}\n`, 0);
  return {
    [Symbol.dispose]: () => {
      // Emptied, not removed: a file that is removed can be locked by two, one each before and after.
      ftruncateSync(fd);
      closeSync(fd);
    },
  };
}

function isAlive(pid: number): boolean {
  if (Number.isNaN(pid) || pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
