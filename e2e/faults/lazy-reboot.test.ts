import { randomBytes, randomUUID } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { type Place, Program, run } from '@pantala/testkit';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type BuiltImage, LazyStage } from '../lib/lazy-stage.ts';
import { MIB } from '../lib/stage.ts';

const CHUNK = 128 * 1024;
const FILES = 4;
const LENGTH = FILES * 2 * MIB;

/** A mount namespace with an id of its own for this start of the machine; with it everything that is mounted is gone. */
class Boot implements Place {
  readonly address = '';
  readonly localhost = '';
  readonly #holder: Program;

  private constructor(holder: Program) {
    this.#holder = holder;
  }

  static async start(folder: string): Promise<Boot> {
    const id = join(folder, randomUUID());
    writeFileSync(id, `${randomUUID()}\n`);
    const script = 'mount --bind "$1" /proc/sys/kernel/random/boot_id; echo started; exec sleep infinity';
    const args = ['--mount', '--propagation', 'private', 'sh', '-ec', script, 'boot', id];
    return new Boot(await Program.start('unshare', args, { name: 'boot', ready: /started/ }));
  }

  wrap(command: string, args: readonly string[]): readonly [string, readonly string[]] {
    return ['nsenter', ['-t', `${this.#holder.pid}`, '-m', command, ...args]];
  }

  async end(): Promise<void> {
    await this.#holder.kill();
  }
}

describe.skipIf(process.getuid?.() !== 0)('a start of the machine (as root)', () => {
  let stage: LazyStage;
  let image: BuiltImage;
  let boot: Boot | undefined;

  beforeEach(async () => {
    stage = new LazyStage({
      address: '',
      localhost: '',
      wrap: (command, args) => boot?.wrap(command, args) ?? [command, args],
    });
    const tree = stage.scratch.join('tree');
    mkdirSync(tree);
    for (let file = 0; file < FILES; file++) writeFileSync(join(tree, `${file}`), randomBytes(LENGTH / FILES));
    image = await stage.build(tree, ['--chunk-size', '128KiB']);
  });
  afterEach(async () => {
    await stage.killEverything().catch(() => undefined);
    await boot?.end();
    boot = undefined;
    await stage[Symbol.asyncDispose]();
  });

  /** Compares files of the mount with what the image was made of. */
  async function expectRight(...files: readonly number[]): Promise<void> {
    for (const file of files) {
      const [command, args] =
        boot?.wrap('cmp', [join(image.tree, `${file}`), stage.scratch.join('m', `${file}`)]) ?? [];
      await run(command ?? '', args ?? []);
    }
  }

  /** Bytes of decoded chunks that the worker has had from a source since it started. */
  async function filled(): Promise<number> {
    const { stdout } = await run('curl', ['-s', '--unix-socket', stage.places.api, 'http://localhost/metrics']);
    return Number(/^pantala_lazyfs_filled_bytes_total\{from="source"\} (\d+)/m.exec(stdout)?.[1] ?? 0);
  }

  test('of what was never synced, only what is right is kept', async () => {
    boot = await Boot.start(stage.scratch.path);
    await stage.mount(image, 'm', '--no-prefetch', '--driver', 'fanotify');
    await expectRight(0, 1);
    const before = await filled();
    expect(before).toBeLessThan(LENGTH);
    await stage.killEverything();
    await boot.end();
    // The power went: of what had been written, and recorded, a chunk did not reach the disk.
    loseChunk(readFileSync(join(image.tree, '0')).subarray(0, CHUNK));
    rmSync(stage.places.stateDirectory, { recursive: true });

    boot = await Boot.start(stage.scratch.path);
    await stage.mount(image, 'm', '--no-prefetch', '--driver', 'fanotify');
    await expectRight(0, 1, 2, 3);
    expect(await filled()).toBe(LENGTH - before + CHUNK);
    expect(await stage.command('mounts', ...stage.options)).toMatch(/fanotify +complete *$/m);
  });

  /** Makes a hole of a chunk in the cache, as if it had never been written. */
  function loseChunk(content: Buffer): void {
    const folder = stage.places.blobs;
    const name = readdirSync(folder).find((each) => each.endsWith('.blob.data')) ?? '';
    const path = join(folder, name);
    const offset = readFileSync(path).indexOf(content);
    expect(offset).toBeGreaterThanOrEqual(0);
    const { atime, mtime } = statSync(path);
    const fd = openSync(path, 'r+');
    writeSync(fd, Buffer.alloc(content.length), 0, content.length, offset);
    closeSync(fd);
    utimesSync(path, atime, mtime);
  }
});
