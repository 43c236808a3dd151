import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { DriverName, MountLine } from '@pantala/lazyfs';
import { run } from '@pantala/testkit';
import { KernelMount, mountImage } from '../../e2e/lib/images.ts';
import { type BuiltImage, LazyStage } from '../../e2e/lib/lazy-stage.ts';
import { Nydusd } from './nydusd.ts';

/** One tree as one way of several shows it. */
export interface Way {
  readonly name: string;
  readonly path: string;
}

/** Ways whose blobs are complete; disposing the stack takes them away. */
export class FilesystemWays implements AsyncDisposable {
  readonly ways: Way[] = [];
  readonly #stack = new AsyncDisposableStack();
  readonly #image: BuiltImage;
  readonly #folder: string;

  /** @param folder on the disk that is measured */
  constructor(image: BuiltImage, folder: string) {
    this.#image = image;
    this.#folder = folder;
    this.ways.push({ name: 'unpacked', path: image.tree });
  }

  /** An image of mkfs.erofs, which keeps everything in one file. */
  async addErofs(): Promise<void> {
    const file = join(this.#folder, 'image.erofs');
    await run('mkfs.erofs', ['--quiet', file, this.#image.tree]);
    const mount = this.#stack.use(await KernelMount.start(file));
    this.ways.push({ name: 'mkfs.erofs', path: mount.path });
  }

  /** The image's own bootstrap on decoded blobs, and nothing of ours behind it. */
  async addKernel(): Promise<void> {
    const cache = join(this.#folder, 'decoded');
    mkdirSync(cache);
    const mount = this.#stack.use(await mountImage(this.#image.bootstrap, this.#image.blobs, cache));
    this.ways.push({ name: 'kernel', path: mount.path });
  }

  /** @returns what the mount says of itself, when it has everything */
  async addLazy(driver: DriverName): Promise<{ readonly stage: LazyStage; readonly line: MountLine }> {
    const stage = this.#stack.use(new LazyStage());
    const line = await stage.mount(this.#image, 'mount', '--driver', driver, '--no-prefetch');
    await stage.command('prefetch', ...stage.options, stage.scratch.join('mount'));
    this.ways.push({ name: driver, path: stage.scratch.join('mount') });
    return { stage, line };
  }

  /** Filled as far as the tree is read, with a file that nobody reads: so the kernel goes on asking before each read. */
  async addWatched(unread: string): Promise<void> {
    const stage = this.#stack.use(new LazyStage());
    await stage.mount(this.#image, 'mount', '--driver', 'fanotify', '--no-prefetch');
    const path = stage.scratch.join('mount');
    await readAll(path, unread);
    this.ways.push({ name: 'fanotify, not complete', path });
  }

  async addNydusd(unread: string): Promise<void> {
    const blobs = join(this.#folder, 'nydusd-blobs');
    await run('cp', ['-r', '--reflink=auto', this.#image.blobs, blobs]);
    const backend = { type: 'localfs', config: { dir: blobs } };
    const mount = this.#stack.use(await Nydusd.start({ bootstrap: this.#image.bootstrap, backend }));
    await readAll(mount.path, unread);
    this.ways.push({ name: 'nydusd', path: mount.path });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

/** A command that opens and reads every file but the one with this name. */
export function readingCommand(path: string, unread: string): readonly string[] {
  const script = 'find "$1" -type f ! -name "$2" -print0 | xargs -0 -n 1000 cat > /dev/null';
  return ['bash', '-o', 'pipefail', '-c', script, 'bash', path, unread];
}

async function readAll(path: string, unread: string): Promise<void> {
  const [command = '', ...args] = readingCommand(path, unread);
  await run(command, args);
}
