import { type ConvertOptions, convertImage } from '@pantala/convert';
import { openImageSource, openImageTarget } from '@pantala/oci';
import { loopbackPlace, Registry, Scratch } from '@pantala/testkit';
import { type Entry, type MadeImage, makeImage, putImage, tarOf } from './images.ts';

/** A registry that has the image of LAYERS as `app:v1`, and a folder. */
export class ConversionStage implements AsyncDisposable {
  readonly scratch = Scratch.create('convert');
  readonly registry: Registry;
  /** Host and port of the registry. */
  readonly host: string;
  readonly image: MadeImage;
  /** Its layers without their compression. */
  readonly tars: readonly Buffer[];

  private constructor(registry: Registry, image: MadeImage, tars: readonly Buffer[]) {
    this.registry = registry;
    this.host = registry.host;
    this.image = image;
    this.tars = tars;
  }

  static async start(): Promise<ConversionStage> {
    const registry = await Registry.start({ place: loopbackPlace() });
    const { image, tars } = await layeredImage();
    await putImage(`${registry.host}/app:v1`, image);
    return new ConversionStage(registry, image, tars);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.registry[Symbol.asyncDispose]();
    await this.scratch[Symbol.asyncDispose]();
  }
}

export async function convert(from: string, to: string, options: ConvertOptions = {}) {
  await using source = await openImageSource(from);
  await using target = await openImageTarget(to);
  return await convertImage(source, target, options);
}

export const text = (length: number, seed: string) => seed.repeat(Math.ceil(length / seed.length)).slice(0, length);
export const folder = (path: string, more: Partial<Entry> = {}): Entry => ({ kind: 'directory', path, ...more });
export const file = (path: string, content: string, more: Partial<Entry> = {}): Entry => ({ path, content, ...more });
export const link = (path: string, linkTarget: string): Entry => ({ kind: 'hardlink', path, linkTarget });

/** Of an image with what layers can do to each other. */
export const LAYERS: readonly (readonly Entry[])[] = [
  [
    folder('', { mode: 0o711, mtime: { seconds: 5, nanoseconds: 0 } }),
    folder('etc', { uid: 3, gid: 4, mode: 0o750 }),
    file('etc/removed', 'gone later'),
    file('etc/kept', text(3_000_000, 'kept ')),
    folder('opaque'),
    file('opaque/hidden', 'gone later too'),
    folder('replaced'),
    file('replaced/inside', 'x'),
    file('suid', 'x', { mode: 0o4711, uid: 70_000, xattrs: new Map([['user.a', Buffer.from('\0=\n')]]) }),
    link('linked', 'suid'),
    { kind: 'symlink', path: 'symlink', linkTarget: '../x' },
    { kind: 'character', path: 'null', major: 1, minor: 3 },
    { kind: 'fifo', path: 'fifo' },
  ],
  [
    // Its directories have owner and mode of the layer below.
    file('etc/.wh.removed', ''),
    file('etc/added', text(5000, 'added')),
    file('opaque/.wh..wh..opq', ''),
    file('opaque/seen', 'seen'),
    file('replaced', 'a file now'),
  ],
  [
    folder('etc', { mode: 0o700 }),
    link('z-second', 'z-first'),
    file('z-first', 'made after its link'),
    file('none', ''),
  ],
];

/** An image of LAYERS, each compressed in another way, and their tars. */
async function layeredImage(): Promise<{ readonly image: MadeImage; readonly tars: readonly Buffer[] }> {
  const tars = await Promise.all(LAYERS.map((entries) => tarOf(entries)));
  const image = makeImage(
    [
      { tar: tars[0] as Buffer },
      { tar: tars[1] as Buffer, compression: 'zstd' },
      { tar: tars[2] as Buffer, compression: 'none' },
    ],
    { annotations: { 'org.example': 'kept' } },
  );
  return { image, tars };
}
