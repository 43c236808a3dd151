import { hostname } from 'node:os';
import { join } from 'node:path';
import { formatRpcAddress } from '@pantala/api';
import type { PeerConfig } from '@pantala/peer';
import type { LoggingOptions } from '@pantala/service';
import { EVERYWHERE, LOOPBACK } from '../config/shared.ts';
import { peerLogPath, type Role, urlOf } from '../roles.ts';
import { type Places, placesOf } from './places.ts';
import { FreePorts } from './ports.ts';
import type { SwarmValues } from './values.ts';

interface Address {
  readonly host: string;
  readonly port: number;
}

/** One child process. */
export interface PlannedProgram {
  /** As in the paths of a shared port: `manager`, `scheduler`, `seed-peer`, `dfdaemon`, `dfdaemon-2`, … */
  readonly name: string;
  readonly role: Role;
  readonly logging: LoggingOptions;
  /** Where it shows its metrics and profiles; reached through the shared ports. */
  readonly metrics: Address;
  readonly profiles: Address | undefined;
}

/** A peer as the ready line shows it. */
export interface PlannedPeer {
  readonly name: string;
  readonly proxy: string;
  readonly socket: string;
  readonly log: string;
}

export interface Plan {
  readonly places: Places;
  /** What may start together, in order: manager, scheduler, then all peers. */
  readonly stages: readonly (readonly PlannedProgram[])[];
  readonly peers: readonly PlannedPeer[];
  readonly seed: PlannedPeer | undefined;
  readonly scheduler: string;
  readonly manager: string | undefined;
  /** Ports for operators that one or several programs named. */
  readonly sharedPorts: readonly { readonly port: number; readonly purpose: string }[];
}

/** Decides names, ports and paths of everything that runs. Ports are free when this returns. */
export async function planSwarm(values: SwarmValues, directory: string | undefined, peers: number): Promise<Plan> {
  const places = placesOf(directory, values);
  const ports = new FreePorts();
  const local = async (port?: number): Promise<Address> => ({
    host: LOOPBACK,
    port: port === undefined ? await ports.take() : await ports.prefer(port),
  });
  const shared = new SharedPorts(ports);
  const logging = (path: string, verbose: boolean): LoggingOptions => ({
    file: join(places.logs, path),
    verbose,
    console: false,
  });
  // Without a file there is no generation to keep to: the log stands where the oldest users look for it.
  const peerLog = peerLogPath(values.fromFile ? values.generation : 'older');

  const managerAddress = values.manager && (await local(values.manager.options.grpc?.port));
  const managers: PlannedProgram[] = [];
  if (values.manager !== undefined && managerAddress !== undefined) {
    const { options, operation } = values.manager;
    const metrics = await local();
    const profiles = operation.profiles && (await local());
    await shared.named(operation.metrics, operation.profiles);
    managers.push({
      name: 'manager',
      role: {
        name: 'manager',
        options: {
          ...options,
          grpc: managerAddress,
          rest: await local(options.rest?.port),
          metrics,
          profiles,
          database: join(places.state('manager'), 'manager.db'),
        },
      },
      logging: logging('manager/core.log', operation.verbose),
      metrics,
      profiles,
    });
  }

  const { options, operation } = values.scheduler;
  const schedulerAddress = await local(options.listen?.port);
  const schedulerMetrics = await local();
  const schedulerProfiles = operation.profiles && (await local());
  await shared.named(operation.metrics, operation.profiles);
  const scheduler: PlannedProgram = {
    name: 'scheduler',
    role: {
      name: 'scheduler',
      options: {
        ...options,
        listen: schedulerAddress,
        advertise: { ip: LOOPBACK, port: schedulerAddress.port },
        ...(managerAddress === undefined ? {} : { manager: { ...options.manager, address: managerAddress } }),
      },
      metrics: schedulerMetrics,
      profiles: schedulerProfiles,
    },
    logging: logging('scheduler/core.log', operation.verbose),
    metrics: schedulerMetrics,
    profiles: schedulerProfiles,
  };

  const planPeer = async (given: PeerConfig, name: string, first: boolean, seed: boolean): Promise<PlannedProgram> => {
    const metrics = await local();
    const profiles = given.profiles && (await local());
    await shared.named(given.metrics, given.profiles);
    const socketPath = first ? places.socket : join(places.run, `${name}.sock`);
    formatRpcAddress({ path: socketPath });
    const config: PeerConfig = {
      ...given,
      host: { ...given.host, ip: given.host.ip ?? LOOPBACK, hostname: given.host.hostname ?? `${hostname()}-${name}` },
      seed: { ...given.seed, enabled: seed },
      socketPath,
      upload: {
        ...given.upload,
        grpc: first ? localOf(given.upload.grpc) : await local(),
        pieces: first ? localOf(given.upload.pieces) : await local(),
      },
      manager: managerAddress,
      schedulers: [schedulerAddress],
      store: { ...given.store, directory: first ? places.store : places.state(name) },
      proxy: first ? given.proxy : { ...given.proxy, listen: { ...given.proxy.listen, ...(await local()) } },
      health: first ? given.health : { ...given.health, ...(await local()) },
      metrics,
      profiles,
    };
    const log = seed ? 'seed-peer/core.log' : peerLog.replace('daemon/', `daemon${name.slice('dfdaemon'.length)}/`);
    return {
      name,
      role: { name: 'peer', config, schedulers: [schedulerAddress], dynconfigPath: undefined },
      logging: logging(log, given.log.verbose),
      metrics,
      profiles,
    };
  };
  const seed = values.seed && (await planPeer(values.seed, 'seed-peer', false, true));
  const planned: PlannedProgram[] = [];
  for (let number = 1; values.peers && number <= peers; number++) {
    planned.push(await planPeer(values.peer, number === 1 ? 'dfdaemon' : `dfdaemon-${number}`, number === 1, false));
  }
  return {
    places,
    stages: [managers, [scheduler], [...(seed === undefined ? [] : [seed]), ...planned]],
    peers: planned.map(plannedPeer),
    seed: seed && plannedPeer(seed),
    scheduler: urlOf(schedulerAddress),
    manager: managerAddress && urlOf(managerAddress),
    sharedPorts: shared.all,
  };
}

/** Ports for operators: each is opened once, however many programs name it. */
class SharedPorts {
  readonly #free: FreePorts;
  readonly #ports = new Map<number, string>();
  #random: number | undefined;

  constructor(free: FreePorts) {
    this.#free = free;
  }

  get all(): { readonly port: number; readonly purpose: string }[] {
    return [...this.#ports].map(([port, purpose]) => ({ port, purpose }));
  }

  async named(metrics: Address | undefined, profiles: Address | undefined): Promise<void> {
    if (metrics !== undefined) await this.#add(metrics.port, 'metrics');
    if (profiles !== undefined) await this.#add(profiles.port, 'pprof');
  }

  /** Port 0, any free one, is the same for all that say so. */
  async #add(port: number, purpose: string): Promise<void> {
    if (port === 0) this.#random ??= await this.#free.take();
    const named = port === 0 ? (this.#random ?? 0) : port;
    if (!this.#ports.has(named)) this.#ports.set(named, purpose);
  }
}

/** On one machine nobody else needs what listens everywhere by default. */
function localOf({ host, port }: Address): Address {
  return { host: host === EVERYWHERE ? LOOPBACK : host, port };
}

function plannedPeer({ name, role, logging }: PlannedProgram): PlannedPeer {
  if (role.name !== 'peer' || logging.file === undefined) throw new TypeError(`${name} is no peer with a log file`);
  const { host = LOOPBACK, port } = role.config.proxy.listen;
  return {
    name,
    proxy: urlOf({ host, port: typeof port === 'number' ? port : port.start }),
    socket: role.config.socketPath,
    log: logging.file,
  };
}
