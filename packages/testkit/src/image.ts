import { createHash } from 'node:crypto';
import {
  createReadStream,
  createWriteStream,
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
} from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { PantalaError, sha256Hex } from '@pantala/base';
import { pack } from 'tar-stream';

export interface Descriptor {
  readonly mediaType: string;
  /** `sha256:<hex>` */
  readonly digest: string;
  readonly size: number;
}

/** An image on disk: an OCI layout's blobs and the manifest that names them. */
export interface LocalImage {
  /** Folder with `blobs/sha256/<hex>`. */
  readonly layout: string;
  readonly manifest: Descriptor;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  /** Bytes of manifest, config and layers: what one complete pull moves. */
  readonly bytes: number;
}

export interface ImageOptions {
  /** The compressed layers are at least this long together. */
  readonly bytes: number;
  readonly layers: number;
}

interface SourceFile {
  readonly path: string;
  readonly size: number;
  readonly mode: number;
  readonly link?: string;
}

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json';
const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar+gzip';
/** Where a machine has most of its programs, libraries and data. */
const SOURCES = ['/usr/bin', '/usr/lib', '/usr/sbin', '/usr/share'];
/** Layers of real images are compressed about this well; the estimate only decides how many files are taken. */
const EXPECTED_RATIO = 0.4;
/** One huge file must not fill a layer by itself. */
const FILE_LIMIT = 128 * 1024 * 1024;
const USTAR_NAME_LIMIT = 99;

/**
 * An image of this machine's own files in several gzip layers. Built once and kept in the temporary folder; files
 * that come and go on the machine do not change an image that was built already.
 */
export async function machineImage(options: ImageOptions): Promise<LocalImage> {
  const layout = join(tmpdir(), `pantala-image-${options.layers}x${options.bytes}`);
  if (!existsSync(join(layout, 'image.json'))) {
    const building = `${layout}.${process.pid}`;
    await rm(building, { recursive: true, force: true });
    await mkdir(join(building, 'blobs', 'sha256'), { recursive: true });
    await buildImage(building, options);
    // Two runs may build at once: the first to finish stays.
    await rename(building, layout).catch(() => rm(building, { recursive: true, force: true }));
  }
  const described = JSON.parse(readFileSync(join(layout, 'image.json'), 'utf8')) as Omit<LocalImage, 'layout'>;
  return { ...described, layout };
}

async function buildImage(layout: string, options: ImageOptions): Promise<void> {
  const files = collect();
  const built: { readonly layer: Descriptor; readonly diffId: string }[] = [];
  let bytes = 0;
  let at = 0;
  // The last layer takes whatever is still missing after the others' real sizes are known.
  for (let number = 0; number < options.layers || bytes < options.bytes; number++) {
    const share = (options.bytes - bytes) / Math.max(1, options.layers - number) / EXPECTED_RATIO;
    const chosen: SourceFile[] = [];
    for (let size = 0; size < Math.max(share, 1) && at < files.length; at++) {
      const file = files[at] as SourceFile;
      chosen.push(file);
      size += file.size;
    }
    if (chosen.length === 0) {
      throw new PantalaError('failed-precondition', `this machine's files are too few for ${options.bytes} bytes`);
    }
    const made = await writeLayer(layout, chosen);
    built.push(made);
    bytes += made.layer.size;
  }
  const config = await writeBlob(
    layout,
    CONFIG_TYPE,
    JSON.stringify({
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      config: { Cmd: ['/usr/bin/true'], Env: ['PATH=/usr/sbin:/usr/bin'] },
      rootfs: { type: 'layers', diff_ids: built.map(({ diffId }) => diffId) },
    }),
  );
  const layers = built.map(({ layer }) => layer);
  const manifest = await writeBlob(
    layout,
    MANIFEST_TYPE,
    JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST_TYPE, config, layers }),
  );
  const described = { manifest, config, layers, bytes: bytes + config.size + manifest.size };
  await writeFile(join(layout, 'image.json'), JSON.stringify(described));
}

/** Regular files and symbolic links of the machine, in an order that gives each layer some of everything. */
function collect(): SourceFile[] {
  const files: SourceFile[] = [];
  for (const source of SOURCES) addFolder(source, files);
  const keyed = files.map((file) => ({ file, key: sha256Hex(file.path) }));
  return keyed.sort((a, b) => (a.key < b.key ? -1 : 1)).map(({ file }) => file);
}

/** Node's own recursive listing follows links to folders, such as /usr/bin/X11, round and round. */
function addFolder(folder: string, files: SourceFile[]): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) addFolder(path, files);
    // Names that a ustar header cannot hold would only test the tar writer.
    if ((!entry.isFile() && !entry.isSymbolicLink()) || Buffer.byteLength(path) > USTAR_NAME_LIMIT) continue;
    const { size, mode } = lstatSync(path);
    if (size > FILE_LIMIT) continue;
    files.push({ path, size, mode: mode & 0o777, ...(entry.isSymbolicLink() ? { link: readlinkSync(path) } : {}) });
  }
}

async function writeLayer(
  layout: string,
  files: readonly SourceFile[],
): Promise<{ layer: Descriptor; diffId: string }> {
  const tar = pack();
  const diff = createHash('sha256');
  const whole = createHash('sha256');
  let size = 0;
  const partial = join(layout, `layer.${process.pid}`);
  const writing = pipeline(
    tar,
    async function* (chunks: AsyncIterable<Buffer>) {
      for await (const chunk of chunks) {
        diff.update(chunk);
        yield chunk;
      }
    },
    createGzip({ level: 1 }),
    async function* (chunks: AsyncIterable<Buffer>) {
      for await (const chunk of chunks) {
        whole.update(chunk);
        size += chunk.length;
        yield chunk;
      }
    },
    createWriteStream(partial),
  );
  for (const file of files) await addFile(tar, file);
  tar.finalize();
  await writing;
  const hex = whole.digest('hex');
  await rename(partial, join(layout, 'blobs', 'sha256', hex));
  return { layer: { mediaType: LAYER_TYPE, digest: `sha256:${hex}`, size }, diffId: `sha256:${diff.digest('hex')}` };
}

async function addFile(tar: ReturnType<typeof pack>, file: SourceFile): Promise<void> {
  const header = { name: file.path.slice(1), mode: file.mode, mtime: new Date(0), uid: 0, gid: 0 };
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const done = (error?: Error | null): void => (error ? reject(error) : resolve());
  if (file.link !== undefined) {
    tar.entry({ ...header, type: 'symlink', linkname: file.link }, done);
  } else if (file.size === 0) {
    tar.entry({ ...header, size: 0 }, '', done);
  } else {
    const entry = tar.entry({ ...header, size: file.size }, done);
    createReadStream(file.path, { end: file.size - 1 })
      .on('error', reject)
      .pipe(entry);
  }
  await promise;
}

async function writeBlob(layout: string, mediaType: string, text: string): Promise<Descriptor> {
  const hex = sha256Hex(text);
  await writeFile(join(layout, 'blobs', 'sha256', hex), text);
  return { mediaType, digest: `sha256:${hex}`, size: Buffer.byteLength(text) };
}

/** Uploads an image as `<registry>/<repository>:<tag>`. */
export async function pushImage(
  image: LocalImage,
  target: {
    readonly registry: string;
    readonly repository: string;
    readonly tag: string;
    readonly authorization?: string;
  },
): Promise<void> {
  const headers = target.authorization === undefined ? {} : { authorization: target.authorization };
  for (const blob of [...image.layers, image.config]) {
    const started = await send('POST', `${target.registry}/v2/${target.repository}/blobs/uploads/`, headers);
    const place = new URL(started.location ?? '', target.registry);
    place.searchParams.set('digest', blob.digest);
    await send(
      'PUT',
      place.href,
      { ...headers, 'content-type': 'application/octet-stream', 'content-length': `${blob.size}` },
      createReadStream(blobPath(image, blob)),
    );
  }
  await send(
    'PUT',
    `${target.registry}/v2/${target.repository}/manifests/${target.tag}`,
    { ...headers, 'content-type': MANIFEST_TYPE, 'content-length': `${image.manifest.size}` },
    createReadStream(blobPath(image, image.manifest)),
  );
}

export function blobPath(image: LocalImage, blob: Descriptor): string {
  return join(image.layout, 'blobs', 'sha256', blob.digest.slice('sha256:'.length));
}

async function send(
  method: string,
  url: string,
  headers: Readonly<Record<string, string>>,
  body?: NodeJS.ReadableStream,
): Promise<{ readonly location: string | undefined }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ location: string | undefined }>();
  const outgoing = request(url, { method, headers }, (response) => {
    response.resume();
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) resolve({ location: response.headers.location });
    else reject(new PantalaError('failed-precondition', `${method} ${url}: status ${status}`));
  });
  outgoing.on('error', reject);
  if (body === undefined) outgoing.end();
  else pipeline(body, outgoing).catch(reject);
  return promise;
}
