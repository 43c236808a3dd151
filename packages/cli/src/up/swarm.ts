import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Logger, throwIfAborted } from '@pantala/base';
import { AdminServer, type SideTargets, sharedPort } from '@pantala/service';
import { LOOPBACK } from '../config/shared.ts';
import { configPathOf, type MirrorResult, mirrorRegistries, undoMirror } from '../containerd/index.ts';
import type { Plan, PlannedProgram } from './plan.ts';
import { SupervisedChild } from './supervisor.ts';
import type { ContainerdValues } from './values.ts';

/** The program whose profiles and metrics a shared port shows without a prefix. */
const FALLBACK = 'dfdaemon';

/** Everything that `pantala up` runs. Disposing it stops it in the opposite order. */
export interface RunningSwarm extends AsyncDisposable {
  /** What was done to containerd's files. */
  readonly mirror: MirrorResult | undefined;
}

/** @throws the error of whatever could not be started; what ran already is stopped */
export async function startSwarm(
  plan: Plan,
  containerd: ContainerdValues | undefined,
  parts: { readonly logger: Logger; readonly signal: AbortSignal },
): Promise<RunningSwarm> {
  const { logger, signal } = parts;
  await using resources = new AsyncDisposableStack();
  const handler = sharedPort(targetsOf(plan.stages.flat()), FALLBACK);
  for (const { port, purpose } of plan.sharedPorts) {
    resources.use(await AdminServer.listen({ host: LOOPBACK, port, purpose }, handler, logger));
  }
  for (const stage of plan.stages) {
    throwIfAborted(signal);
    const children = stage.map((program) => new SupervisedChild(program, plan.places.run, logger));
    // One that fails leaves the others of its stage to be stopped.
    resources.defer(async () => {
      await Promise.all(children.map((child) => child[Symbol.asyncDispose]()));
    });
    await Promise.all(children.map((child) => child.start()));
  }
  const mirror = mirrorThrough(plan, containerd);
  if (mirror !== undefined) {
    resources.defer(() => {
      const { left, restored, removed } = undoMirror(mirror.certsDir);
      logger.info('containerd’s files are as they were', { restored, removed });
      if (left.length > 0) logger.warn('files that were changed since are left as they are', { left });
    });
  }
  const owned = resources.move();
  return { mirror: mirror?.result, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

function targetsOf(programs: readonly PlannedProgram[]): SideTargets {
  return Object.fromEntries(programs.map(({ name, metrics, profiles }) => [name, { metrics, debug: profiles }]));
}

/** Makes containerd use the first peer, where the values say so: below the swarm's directory, or on the system. */
function mirrorThrough(
  plan: Plan,
  containerd: ContainerdValues | undefined,
): { readonly certsDir: string; readonly result: MirrorResult } | undefined {
  const [peer] = plan.peers;
  if (containerd === undefined || peer === undefined) return undefined;
  const { configFile, injectConfigPath } = containerd;
  const named = existsSync(configFile) ? configPathOf(readFileSync(configFile, 'utf8')) : undefined;
  const certsDir = plan.places.certsDir ?? named ?? join(dirname(configFile), 'certs.d');
  const result = mirrorRegistries({
    proxy: peer.proxy,
    registries: containerd.registries,
    certsDir,
    configFile: injectConfigPath && plan.places.certsDir === undefined ? configFile : undefined,
    replace: false,
  });
  return { certsDir, result };
}
