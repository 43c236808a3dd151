import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const MAX_LISTING = 1024 ** 3;

/**
 * Copies the first files of folders of this machine, in the order of their names, as many as wanted. The result appears
 * when it is whole.
 *
 * @param wanted bytes
 * @param add puts more beside them before that
 */
export function copyMachineTree(
  from: readonly string[],
  wanted: number,
  target: string,
  add: (tree: string) => void = () => {},
): void {
  mkdirSync(dirname(target), { recursive: true });
  const scratch = mkdtempSync(join(dirname(target), 'making-'));
  const list = join(scratch, 'list');
  writeFileSync(list, firstFiles(from, wanted), 'latin1');
  const tree = join(scratch, 'tree');
  mkdirSync(tree);
  execFileSync('bash', ['-c', 'tar -C / --null --no-recursion -T "$1" -cf - | tar -C "$2" -xpf -', 'bash', list, tree]);
  add(tree);
  rmSync(target, { recursive: true, force: true });
  renameSync(tree, target);
  rmSync(scratch, { recursive: true });
}

function firstFiles(from: readonly string[], wanted: number): string {
  const listed = execFileSync(
    'bash',
    ['-c', 'find "$@" -xdev -printf "%s %p\\0" | LC_ALL=C sort -z -k2', 'bash', ...from],
    {
      maxBuffer: MAX_LISTING,
      encoding: 'latin1',
    },
  );
  let sum = 0;
  const names: string[] = [];
  for (const line of listed.split('\0')) {
    const [, size = '0', name = ''] = /^(\d+) (.*)$/s.exec(line) ?? [];
    if (name === '') continue;
    sum += Number(size);
    if (sum > wanted) break;
    names.push(name.slice(1));
  }
  return `${names.join('\0')}\0`;
}
