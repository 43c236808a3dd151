import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sha256Hex } from '@pantala/base';
import { pantala } from '@pantala/testkit';
import { copyMachineTree } from './machine-tree.ts';

export interface PythonImage {
  /** OCI layouts with one image each, as `oci:FOLDER`: layers of tar.gz, and what Pantala made of them. */
  readonly layers: string;
  readonly nydus: string;
  /** Hex digests of the layers, from below. */
  readonly layerDigests: readonly string[];
  /** Of the Nydus image: its blobs, and the layer that holds its bootstrap. */
  readonly blobDigests: readonly string[];
  readonly bootstrapDigest: string;
  /** The bootstrap itself. */
  readonly bootstrap: string;
}

interface Manifest {
  readonly layers: readonly {
    readonly digest: string;
    readonly annotations?: Readonly<Record<string, string>>;
  }[];
}

const MIB = 1024 * 1024;
const MEDIA_TYPES = {
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
};
const BOOTSTRAP = 'containerd.io/snapshot/nydus-bootstrap';

/**
 * An image with this machine's /usr/bin/python3, which can be run in it, in three layers with other files of the machine
 * beside it; made once.
 *
 * @param size MiB of files besides the interpreter and its libraries
 */
export async function pythonImage(work: string, size: number): Promise<PythonImage> {
  const folder = join(work, `python-${size}`);
  if (!existsSync(folder)) {
    const making = `${folder}.making`;
    rmSync(making, { recursive: true, force: true });
    mkdirSync(join(making, 'layers', 'blobs', 'sha256'), { recursive: true });
    writeLayout(join(making, 'layers'), makeTrees(making, size));
    const [from, to] = [`oci:${join(making, 'layers')}`, `oci:${join(making, 'nydus')}`];
    const converting = await pantala(['image', 'convert', from, to, '--no-progress']);
    const { code } = await converting.exited;
    if (code !== 0) throw new Error(`the image could not be converted:\n${converting.tail()}`);
    renameSync(making, folder);
  }
  const [layers, nydus] = [join(folder, 'layers'), join(folder, 'nydus')];
  const parts = manifestOf(nydus).layers;
  const hex = (digest: string) => digest.slice('sha256:'.length);
  const isBootstrap = (part: Manifest['layers'][number]) => part.annotations?.[BOOTSTRAP] !== undefined;
  const bootstrapDigest = hex(parts.find(isBootstrap)?.digest ?? '');
  const bootstrap = join(folder, 'image.boot');
  if (!existsSync(bootstrap)) {
    const layer = join(nydus, 'blobs', 'sha256', bootstrapDigest);
    writeFileSync(bootstrap, execFileSync('tar', ['-xzOf', layer, 'image/image.boot'], { maxBuffer: 256 * MIB }));
  }
  return {
    layers: `oci:${layers}`,
    nydus: `oci:${nydus}`,
    layerDigests: manifestOf(layers).layers.map(({ digest }) => hex(digest)),
    blobDigests: parts.filter((part) => !isBootstrap(part)).map(({ digest }) => hex(digest)),
    bootstrapDigest,
    bootstrap,
  };
}

/** Trees of the layers, from below: interpreter and libraries among other programs, its modules, data. */
function makeTrees(folder: string, size: number): string[] {
  const [programs, modules, data] = [0, 1, 2].map((number) => join(folder, `tree-${number}`)) as [
    string,
    string,
    string,
  ];
  const libraries = execFileSync('ldd', ['/usr/bin/python3'], { encoding: 'latin1' }).match(/\/\S+/g) ?? [];
  copyMachineTree(['/usr/bin', '/usr/lib'], (size * MIB) / 2, programs, (tree) => {
    // As files, whatever links lead to them: the tree needs no other names.
    execFileSync('cp', ['--dereference', '--parents', '--remove-destination', '/usr/bin/python3', ...libraries, tree]);
  });
  const names = readdirSync('/usr/lib').filter((name) => name.startsWith('python3'));
  copyMachineTree(
    names.map((name) => join('/usr/lib', name)),
    Number.POSITIVE_INFINITY,
    modules,
  );
  copyMachineTree(['/usr/share'], (size * MIB) / 2, data);
  return [programs, modules, data];
}

function writeLayout(layout: string, trees: readonly string[]): void {
  const diffIds: string[] = [];
  const layers = trees.map((tree) => {
    const tar = join(layout, 'layer.tar');
    execFileSync('tar', ['-C', tree, '--sort=name', '-cf', tar, '.']);
    rmSync(tree, { recursive: true });
    diffIds.push(`sha256:${digestOf(tar)}`);
    execFileSync('gzip', ['-n', tar]);
    const hex = digestOf(`${tar}.gz`);
    const path = join(layout, 'blobs', 'sha256', hex);
    renameSync(`${tar}.gz`, path);
    return { mediaType: MEDIA_TYPES.layer, digest: `sha256:${hex}`, size: statSync(path).size };
  });
  const blob = (mediaType: string, content: object) => {
    const text = JSON.stringify(content);
    const hex = sha256Hex(text);
    writeFileSync(join(layout, 'blobs', 'sha256', hex), text);
    return { mediaType, digest: `sha256:${hex}`, size: Buffer.byteLength(text) };
  };
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const config = blob(MEDIA_TYPES.config, {
    architecture,
    os: 'linux',
    config: { Cmd: ['/usr/bin/python3'] },
    rootfs: { type: 'layers', diff_ids: diffIds },
  });
  const manifest = blob(MEDIA_TYPES.manifest, { schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config, layers });
  writeFileSync(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [manifest] }));
  writeFileSync(join(layout, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
}

function digestOf(path: string): string {
  return execFileSync('sha256sum', [path], { encoding: 'latin1' }).slice(0, 64);
}

function manifestOf(layout: string): Manifest {
  const index = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as {
    readonly manifests: readonly { readonly digest: string }[];
  };
  const hex = (index.manifests[0]?.digest ?? '').slice('sha256:'.length);
  return JSON.parse(readFileSync(join(layout, 'blobs', 'sha256', hex), 'utf8')) as Manifest;
}
