import type { TarHeader, TarMember } from '@pantala/oci';
import type { Directory, RegularFile } from '@pantala/rafs';
import { type TreeEntry, treeEntries } from '../inspect/entries.ts';
import type { UnpackCount } from './directory.ts';
import { type Loss, Losses } from './losses.ts';

export interface TarUnpackOptions<Content> {
  /** A file's bytes in order, checked. */
  readonly content: (file: RegularFile<Content>) => AsyncIterable<Uint8Array>;
  /** Called before each member. */
  readonly progress?: (done: UnpackCount) => void;
}

/** A tree as members for `writeTar`, in the order of the tree; hard links name the first path of their file. */
export class TarUnpacking<Content> {
  readonly #root: Directory<Content>;
  readonly #options: TarUnpackOptions<Content>;
  readonly #losses = new Losses();

  constructor(root: Directory<Content>, options: TarUnpackOptions<Content>) {
    this.#root = root;
    this.#options = options;
  }

  /** What no tar can hold; complete when all members have been given. */
  get lost(): readonly Loss[] {
    return this.#losses.list;
  }

  *members(): Generator<TarMember> {
    let [entries, bytes] = [0, 0];
    for (const entry of treeEntries(this.#root)) {
      this.#options.progress?.({ entries, bytes });
      entries++;
      const { node } = entry;
      if (node.kind === 'socket') {
        this.#losses.add('socket', entry.path, 'a tar has no sockets');
        continue;
      }
      const header = headerOf(entry);
      if (node.kind !== 'regular' || entry.first !== undefined) {
        yield { header };
        continue;
      }
      bytes += node.size;
      yield { header, content: () => this.#options.content(node) };
    }
  }
}

function headerOf<Content>({ path, node, first }: TreeEntry<Content>): TarHeader {
  const { mode, uid, gid, mtime, xattrs } = node.attributes;
  const isFirst = first === undefined;
  const [major, minor] = isFirst && 'major' in node ? [node.major, node.minor] : [0, 0];
  return {
    kind: !isFirst || node.kind === 'socket' ? 'hardlink' : node.kind,
    path: path === '.' ? '' : path,
    mode,
    uid,
    gid,
    mtime,
    size: isFirst && node.kind === 'regular' ? node.size : 0,
    linkTarget: first ?? (node.kind === 'symlink' ? node.target : ''),
    major,
    minor,
    xattrs: isFirst ? xattrs : new Map(),
  };
}
