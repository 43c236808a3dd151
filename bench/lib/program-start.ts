import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** The program whose first line is waited for, as it lies in the image. */
const PROGRAM = ['/usr/bin/python3', '-c', 'print(1, flush=True)'];

/**
 * Starts the image's program and waits for its first line.
 *
 * @param root where the image is
 * @param pid a process whose mount namespace shows it
 */
export async function firstLine(root: string, pid: number): Promise<void> {
  const child = spawn('nsenter', ['-t', String(pid), '-m', 'chroot', root, ...PROGRAM], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (text) => (said += text));
  const ended = once(child, 'close');
  const line = await Promise.race([once(child.stdout, 'data'), ended.then(() => undefined)]);
  if (line === undefined) throw new Error(`the program in ${root} printed nothing: ${said}`);
  await ended;
}
