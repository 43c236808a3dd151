import { mkdirSync } from 'node:fs';
import { MOUNT_ATTRIBUTES, mountFileSystem, unmount } from '@pantala/linux';
import { type Program, pantala, Scratch } from '@pantala/testkit';

/** Why images cannot be mounted here; undefined when they can. */
export const NO_MOUNTS = process.getuid?.() === 0 ? undefined : 'needs root';

export interface ImageOutcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** The lines of stdout that are JSON objects. */
  readonly lines: readonly Record<string, unknown>[];
}

/** Runs `pantala image …` to its end, however that is. */
export async function tryImage(...args: readonly string[]): Promise<ImageOutcome> {
  await using program: Program = await pantala(['image', ...args], { name: `pantala image ${args[0]}` });
  const { code } = await program.exited;
  const { stdout, stderr } = program;
  const lines = stdout.split('\n').filter((line) => line.startsWith('{'));
  return { code, stdout, stderr, lines: lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

/** The same, and it must have worked. */
export async function image(...args: readonly string[]): Promise<ImageOutcome> {
  const outcome = await tryImage(...args);
  if (outcome.code === 0) return outcome;
  throw new Error(`pantala image ${args.join(' ')}: status ${outcome.code}\n${outcome.stderr}${outcome.stdout}`);
}

export interface MountPlanFacts {
  readonly bootstrap: string;
  readonly devices: readonly {
    readonly blobId: string;
    readonly size: number;
    readonly cacheFile: string;
    readonly complete: boolean;
  }[];
}

export async function planOf(bootstrap: string, cache: string, ...args: readonly string[]): Promise<MountPlanFacts> {
  const { lines } = await image('mount-plan', bootstrap, '--cache-dir', cache, ...args);
  return lines[0] as unknown as MountPlanFacts;
}

/** An image that the kernel has mounted as EROFS. */
export class KernelMount implements AsyncDisposable {
  readonly path: string;
  readonly #scratch: Scratch;

  private constructor(path: string, scratch: Scratch) {
    this.path = path;
    this.#scratch = scratch;
  }

  /** @param source a bootstrap, whose decoded blobs are the devices in order, or a disk without any */
  static async start(source: string, devices: readonly string[] = []): Promise<KernelMount> {
    const scratch = Scratch.create('erofs');
    const path = scratch.join('mount');
    mkdirSync(path);
    await mountFileSystem({
      type: 'erofs',
      parameters: [['source', source], ...devices.map((device) => ['device', device] as const)],
      attributes: MOUNT_ATTRIBUTES.readOnly,
      target: path,
    });
    return new KernelMount(path, scratch);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await unmount(this.path, { detach: true });
    await this.#scratch[Symbol.asyncDispose]();
  }
}

/** Decodes an image's blobs and has the kernel mount it with them. */
export async function mountImage(bootstrap: string, blobs: string, cache: string): Promise<KernelMount> {
  await image('export', bootstrap, '-D', blobs, '--devices', '--output', cache, '--json');
  const plan = await planOf(bootstrap, cache, '-D', blobs);
  return KernelMount.start(
    plan.bootstrap,
    plan.devices.map(({ cacheFile }) => cacheFile),
  );
}
