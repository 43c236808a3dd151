import { type ByteString, PantalaError, shown } from '@pantala/base';
import type { TarHeader } from '@pantala/oci';
import { type Attributes, type Directory, linkBelow, type Node } from '@pantala/rafs';

/** Symbolic links on the way to one member: what Linux follows at most. */
const MAX_LINKS_FOLLOWED = 40;
/** Names between the root and a member, as paths of PATH_MAX bytes can have. */
const MAX_DEPTH = 2048;

/** Of directories that a tar does not mention but has members below. */
const IMPLIED: Attributes = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtime: { seconds: 0, nanoseconds: 0 },
  xattrs: new Map(),
};

/** What a tar shows when it was unpacked into an empty directory. */
export interface TarTreeResult<Content> {
  readonly root: Directory<Content>;
  /** Directories that no member describes: in a layer, those of the layers below keep their owner and mode. */
  readonly implied: ReadonlySet<Directory<Content>>;
}

interface Draft<Content> {
  readonly kind: 'directory';
  attributes: Attributes;
  readonly entries: Map<ByteString, Node<Content>>;
}

/** Where a member goes: its path has no symbolic link but itself. */
interface Place<Content> {
  readonly parent: Draft<Content>;
  readonly name: ByteString;
  readonly path: ByteString;
}

/**
 * Puts members of a tar into a tree in their order: a later one replaces an earlier one of its name, parents that are
 * missing appear, names below a symbolic link follow it inside the root, hard links are one object, also those that
 * come before what they name. Whiteouts stay the files that they are.
 */
export class TarTree<Content> {
  readonly #root = directoryOf<Content>(IMPLIED);
  readonly #implied = new Set<Directory<Content>>([this.#root]);
  /** Hard links whose target has not come yet: path of the link → path of the target, and back. */
  readonly #waiting = new Map<ByteString, ByteString>();
  readonly #awaited = new Map<ByteString, ByteString[]>();

  /**
   * Adds any member but a regular file.
   *
   * @throws `invalid-argument` naming it, when it cannot be where it wants to be
   */
  add(header: TarHeader): void {
    const { kind, path } = header;
    if (path === '') {
      if (kind !== 'directory') throw refused(path, `is a ${kind} in the place of the root`);
      this.#describe(this.#root, header);
      return;
    }
    if (kind === 'regular') throw refused(path, 'is a regular file without content');
    if (kind === 'hardlink') {
      this.#link(path, header.linkTarget);
      return;
    }
    const place = this.#place(path);
    if (kind === 'directory') {
      const present = place.parent.entries.get(place.name);
      if (present?.kind === 'directory') this.#describe(present, header);
      else this.#put(place, directoryOf(attributesOf(header)));
      return;
    }
    this.#put(place, leaf(kind, header));
  }

  /** Adds a regular file with what is known of its content. @throws as `add` */
  addFile(header: TarHeader, content: Content): void {
    if (header.path === '') throw refused(header.path, 'is a file in the place of the root');
    this.#put(this.#place(header.path), {
      kind: 'regular',
      attributes: attributesOf(header),
      size: header.size,
      content,
    });
  }

  /**
   * @param isLayer whether the tree is to be merged with those of lower layers: hard links may name their files, for
   *   which the tree then has marks (`linkBelow`)
   * @throws `invalid-argument` when a hard link names something that never came
   */
  finish(isLayer = false): TarTreeResult<Content> {
    for (const [path, target] of this.#waiting) {
      // Links to links are resolved with what those name; who waits for nobody outside waits for itself.
      if (this.#waiting.has(target)) continue;
      if (!isLayer) throw refused(path, `is a hard link to "${shown(target)}", which is not in the tar`);
      const mark = linkBelow(target);
      for (const link of this.#awaited.get(target) ?? [])
        if (this.#waiting.get(link) === target) this.#put(this.#place(link), mark);
    }
    for (const [path, target] of this.#waiting)
      throw refused(path, `is a hard link to "${shown(target)}", which is a link to it`);
    return { root: this.#root, implied: this.#implied };
  }

  #describe(directory: Draft<Content>, header: TarHeader): void {
    directory.attributes = attributesOf(header);
    this.#implied.delete(directory);
  }

  #link(path: ByteString, targetPath: ByteString): void {
    if (targetPath === '') throw refused(path, 'is a hard link to the root');
    const { node: target, path: known } = this.#find(targetPath);
    const place = this.#place(path);
    if (target === undefined) {
      // It replaces what has its name when its target comes, as if it had come right after that.
      if (known === place.path) throw refused(path, 'is a hard link to itself');
      this.#waiting.set(place.path, known);
      const others = this.#awaited.get(known);
      if (others === undefined) this.#awaited.set(known, [place.path]);
      else others.push(place.path);
      return;
    }
    if (target.kind === 'directory') throw refused(path, `is a hard link to the directory "${shown(targetPath)}"`);
    if (place.parent.entries.get(place.name) !== target) this.#put(place, target);
  }

  #put(place: Place<Content>, node: Node<Content>): void {
    const todo = [place];
    for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
      next.parent.entries.set(next.name, node);
      this.#waiting.delete(next.path);
      const links = this.#awaited.get(next.path);
      if (links === undefined) continue;
      this.#awaited.delete(next.path);
      for (const link of links) {
        if (this.#waiting.get(link) !== next.path) continue;
        if (node.kind === 'directory') throw refused(link, `is a hard link to the directory "${shown(next.path)}"`);
        todo.push(this.#place(link));
      }
    }
  }

  /** What stands at a path, and that path without symbolic links as far as they are there. Makes no directory. */
  #find(path: ByteString): { readonly node: Node<Content> | undefined; readonly path: ByteString } {
    const place = this.#place(path, false);
    return { node: place.parent.entries.get(place.name), path: place.path };
  }

  #place(path: ByteString, make = true): Place<Content> {
    const cut = path.lastIndexOf('/');
    const name = path.slice(cut + 1);
    if (cut < 0) return { parent: this.#root, name, path };
    const { directory, names } = this.#walk(path.slice(0, cut), path, make);
    return { parent: directory, name, path: names.length === 0 ? name : `${names.join('/')}/${name}` };
  }

  /** The directory that a path leads to; where there is none, one is made, or an empty one stands for it. */
  #walk(
    folder: ByteString,
    whole: ByteString,
    make: boolean,
  ): { readonly directory: Draft<Content>; readonly names: readonly ByteString[] } {
    let trail: { readonly directory: Draft<Content>; readonly name: ByteString }[] = [];
    let directory = this.#root;
    let followed = 0;
    const todo = folder.split('/').reverse();
    for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
      if (name === '' || name === '.') continue;
      if (name === '..') {
        directory = trail.pop()?.directory ?? this.#root;
        continue;
      }
      const node = directory.entries.get(name);
      if (node?.kind === 'symlink') {
        if (++followed > MAX_LINKS_FOLLOWED) throw refused(whole, `lies behind more than ${MAX_LINKS_FOLLOWED} links`);
        if (node.target.startsWith('/')) {
          trail = [];
          directory = this.#root;
        }
        todo.push(...node.target.split('/').reverse());
        continue;
      }
      if (node !== undefined && node.kind !== 'directory')
        throw refused(whole, 'lies below something that is no directory');
      if (trail.length >= MAX_DEPTH) throw refused(whole, `lies more than ${MAX_DEPTH} directories deep`);
      trail.push({ directory, name });
      directory = node ?? (make ? this.#imply(directory, name) : directoryOf(IMPLIED));
    }
    return { directory, names: trail.map((step) => step.name) };
  }

  #imply(parent: Draft<Content>, name: ByteString): Draft<Content> {
    const made = directoryOf<Content>(IMPLIED);
    parent.entries.set(name, made);
    this.#implied.add(made);
    return made;
  }
}

function directoryOf<Content>(attributes: Attributes): Draft<Content> {
  return { kind: 'directory', attributes, entries: new Map() };
}

function attributesOf({ mode, uid, gid, mtime, xattrs }: TarHeader): Attributes {
  return { mode, uid, gid, mtime, xattrs };
}

function leaf<Content>(kind: 'symlink' | 'character' | 'block' | 'fifo', header: TarHeader): Node<Content> {
  const attributes = attributesOf(header);
  // Linux gives every symbolic link these permissions, whatever an archive says.
  if (kind === 'symlink') return { kind, attributes: { ...attributes, mode: 0o777 }, target: header.linkTarget };
  if (kind === 'fifo') return { kind, attributes };
  return { kind, attributes, major: header.major, minor: header.minor };
}

function refused(path: ByteString, why: string): PantalaError {
  return new PantalaError('invalid-argument', `the tar has a member "${shown(path)}" that ${why}`);
}
