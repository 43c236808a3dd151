import {
  Containerd,
  installed,
  loopbackPlace,
  Network,
  type Place,
  pullThroughMirror,
  type Registry,
} from '@pantala/testkit';

/** One machine's way to pull the image. */
export interface Puller extends AsyncDisposable {
  /** Resolves with the seconds that it took. */
  pull(image: { readonly registry: Registry; readonly repository: string; readonly tag: string }): Promise<number>;
}

/** What the demo runs on: network namespaces and containerd, or as much of it as this machine has. */
export interface Stage extends AsyncDisposable {
  /** What is missing here and what is done instead; empty when everything is there. */
  readonly shortcomings: readonly string[];
  place(): Promise<Place>;
  puller(place: Place, mirror: string): Promise<Puller>;
}

export async function setStage(): Promise<Stage> {
  const shortcomings: string[] = [];
  const reason = await Network.impossible();
  if (reason !== undefined) {
    shortcomings.push(`no network namespaces (${reason}): each node gets a loopback address of its own instead`);
  }
  const noContainerd = whyNoContainerd();
  if (noContainerd !== undefined) {
    shortcomings.push(`no containerd (${noContainerd}): the layers are fetched as containerd does, but not unpacked`);
  }
  const network = reason === undefined ? await Network.create() : undefined;
  return {
    shortcomings,
    place: async () => (network === undefined ? loopbackPlace() : network.addNode()),
    puller: async (place, mirror) =>
      noContainerd === undefined ? containerdPuller(place, mirror) : plainPuller(mirror),
    async [Symbol.asyncDispose]() {
      await network?.[Symbol.asyncDispose]();
    },
  };
}

function whyNoContainerd(): string | undefined {
  if (process.getuid?.() !== 0) return 'it needs root';
  if (!installed('containerd')) return 'not installed: apt-get install containerd';
  return undefined;
}

async function containerdPuller(place: Place, mirror: string): Promise<Puller> {
  const containerd = await Containerd.start({ place });
  return {
    pull: ({ registry, repository, tag }) => {
      containerd.useMirror({ registry: registry.host, server: registry.url, mirror });
      return containerd.pull(`${registry.host}/${repository}:${tag}`);
    },
    [Symbol.asyncDispose]: () => containerd[Symbol.asyncDispose](),
  };
}

function plainPuller(mirror: string): Puller {
  return {
    pull: async ({ registry, repository, tag }) => {
      const { seconds } = await pullThroughMirror(mirror, { registry: registry.url, repository, tag });
      return seconds;
    },
    async [Symbol.asyncDispose]() {},
  };
}
