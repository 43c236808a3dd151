import { readdirSync, statfsSync } from 'node:fs';
import { arch, availableParallelism, cpus, platform, release } from 'node:os';
import type { commonV2, Sent } from '@pantala/api';
import { monotonicNow } from '@pantala/base';
import { cpuTimes, establishedConnections, memoryInfo, networkBytes, readNumber, readText } from './proc.ts';

/** The part of a host's announcement that says how the machine is doing. */
export type HostFacts = Pick<
  Sent<typeof commonV2.HostSchema>,
  | 'os'
  | 'platform'
  | 'platformFamily'
  | 'platformVersion'
  | 'kernelVersion'
  | 'cpu'
  | 'memory'
  | 'network'
  | 'disk'
  | 'build'
>;

export interface HostFactsOptions {
  /** Directory of the store: the disk that counts. */
  readonly directory: string;
  readonly idc: string | undefined;
  readonly location: string | undefined;
  /** Port of the TCP piece protocol. */
  readonly piecePort: number;
  /** Bytes a second that this peer may receive and send. */
  readonly downloadRate: number;
  readonly uploadRate: number;
}

interface Sample {
  readonly at: number;
  readonly cpu: number[];
  readonly process: NodeJS.CpuUsage;
  readonly received: number;
  readonly sent: number;
}

/** A link of 10 Gbit/s: what upstream assumes where the kernel does not know (virtual interfaces). */
const DEFAULT_LINK = 10_000_000_000;

/** Milliseconds for which a look at the network holds: many children may ask, and the kernel's lists may be long. */
const NETWORK_LIFETIME = 1_000;

/** Milliseconds that two samples must lie apart for their difference to mean something. */
const MIN_SAMPLE_DISTANCE = 100;

/** Measures this machine. Rates are those since the last look. */
export class HostMeter {
  readonly #options: HostFactsOptions;
  readonly #link = linkSpeed();
  readonly #release = osRelease();
  #last: Sample;
  #rates = { rx: 0, tx: 0, cpu: 0, process: 0 };
  #seen: { readonly at: number; readonly network: NonNullable<HostFacts['network']> } | undefined;

  constructor(options: HostFactsOptions) {
    this.#options = options;
    this.#last = sample();
  }

  /** Everything that upstream's scheduler wants to know; every group is always there. */
  facts(): HostFacts {
    this.#measure();
    return {
      os: platform(),
      platform: this.#release.id,
      platformFamily: this.#release.family,
      platformVersion: this.#release.version,
      kernelVersion: release(),
      cpu: this.#cpu(),
      memory: this.#memory(),
      network: this.network(),
      disk: diskFacts(this.#options.directory),
      build: { gitVersion: 'pantala', platform: `${platform()}/${arch()}` },
    };
  }

  /** The network alone, which SyncHost tells. */
  network(): NonNullable<HostFacts['network']> {
    const now = monotonicNow();
    if (this.#seen === undefined || now - this.#seen.at > NETWORK_LIFETIME) {
      this.#measure();
      this.#seen = { at: now, network: this.#network() };
    }
    return this.#seen.network;
  }

  #measure(): void {
    const now = sample();
    const last = this.#last;
    const seconds = (now.at - last.at) / 1000;
    if (seconds * 1000 < MIN_SAMPLE_DISTANCE) return;
    this.#last = now;
    const [total, idle] = [now, last].reduce(
      ([all, still], { cpu }, index) => {
        const sign = index === 0 ? 1 : -1;
        return [all + sign * sum(cpu.slice(0, 8)), still + sign * ((cpu[3] ?? 0) + (cpu[4] ?? 0))];
      },
      [0, 0] as [number, number],
    );
    const spent = now.process.user + now.process.system - last.process.user - last.process.system;
    this.#rates = {
      rx: (Math.max(0, now.received - last.received) * 8) / seconds,
      tx: (Math.max(0, now.sent - last.sent) * 8) / seconds,
      cpu: total > 0 ? percentage(total - idle, total) : 0,
      process: percentage(spent / 1e6, seconds * availableParallelism()),
    };
  }

  #cpu() {
    const [user, nice, system, idle, iowait, irq, softirq, steal, guest, guestNice] = this.#last.cpu.map((s) => s ?? 0);
    const quota = readText('/sys/fs/cgroup/cpu.max')?.trim().split(' ');
    return {
      logicalCount: cpus().length,
      physicalCount: physicalCores() ?? cpus().length,
      percent: this.#rates.cpu,
      processPercent: this.#rates.process,
      times: {
        user: user ?? 0,
        nice: nice ?? 0,
        system: system ?? 0,
        idle: idle ?? 0,
        iowait: iowait ?? 0,
        irq: irq ?? 0,
        softirq: softirq ?? 0,
        steal: steal ?? 0,
        guest: guest ?? 0,
        guestNice: guestNice ?? 0,
      },
      ...(quota === undefined
        ? {}
        : {
            cgroup: {
              period: BigInt(quota[1] ?? 100_000),
              quota: quota[0] === 'max' ? -1n : BigInt(quota[0] ?? -1),
              usedPercent: this.#rates.process,
            },
          }),
    };
  }

  #memory() {
    const info = memoryInfo(readText('/proc/meminfo') ?? '');
    const total = info.get('MemTotal') ?? 0;
    const available = info.get('MemAvailable') ?? 0;
    const used = total - available;
    const usage = readNumber('/sys/fs/cgroup/memory.current');
    const limit = readNumber('/sys/fs/cgroup/memory.max');
    return {
      total: BigInt(total),
      available: BigInt(available),
      used: BigInt(used),
      free: BigInt(info.get('MemFree') ?? 0),
      usedPercent: percentage(used, total),
      processUsedPercent: percentage(process.memoryUsage.rss(), total),
      ...(usage === undefined
        ? {}
        : {
            cgroup: {
              limit: BigInt(limit ?? -1),
              usage: BigInt(usage),
              usedPercent: limit === undefined ? 0 : percentage(usage, limit),
            },
          }),
    };
  }

  #network() {
    const { idc, location, piecePort, downloadRate, uploadRate } = this.#options;
    const connections = `${readText('/proc/net/tcp') ?? ''}\n${readText('/proc/net/tcp6') ?? ''}`;
    return {
      tcpConnectionCount: establishedConnections(connections),
      uploadTcpConnectionCount: establishedConnections(connections, piecePort),
      ...(idc === undefined ? {} : { idc }),
      ...(location === undefined ? {} : { location }),
      maxRxBandwidth: BigInt(Math.floor(Math.min(this.#link, downloadRate * 8))),
      maxTxBandwidth: BigInt(Math.floor(Math.min(this.#link, uploadRate * 8))),
      rxBandwidth: BigInt(Math.round(this.#rates.rx)),
      txBandwidth: BigInt(Math.round(this.#rates.tx)),
    };
  }
}

function sample(): Sample {
  return {
    at: monotonicNow(),
    cpu: cpuTimes(readText('/proc/stat') ?? ''),
    process: process.cpuUsage(),
    ...networkBytes(readText('/proc/net/dev') ?? ''),
  };
}

function diskFacts(directory: string) {
  try {
    const { blocks, bsize, bavail, files, ffree } = statfsSync(directory);
    const total = blocks * bsize;
    const free = bavail * bsize;
    return {
      total: BigInt(total),
      free: BigInt(free),
      used: BigInt(total - free),
      usedPercent: percentage(total - free, total),
      inodesTotal: BigInt(files),
      inodesFree: BigInt(ffree),
      inodesUsed: BigInt(files - ffree),
      inodesUsedPercent: percentage(files - ffree, files),
    };
  } catch {
    return {};
  }
}

/** Bits a second of the fastest interface. */
function linkSpeed(): number {
  let fastest = 0;
  try {
    for (const name of readdirSync('/sys/class/net')) {
      if (name !== 'lo') fastest = Math.max(fastest, (readNumber(`/sys/class/net/${name}/speed`) ?? 0) * 1e6);
    }
  } catch {
    // Without sysfs the default has to do.
  }
  return fastest > 0 ? fastest : DEFAULT_LINK;
}

function physicalCores(): number | undefined {
  const text = readText('/proc/cpuinfo') ?? '';
  const cores = new Set<string>();
  let socket = '';
  for (const [, name, value] of text.matchAll(/^(physical id|core id)\s*: (\d+)$/gm)) {
    if (name === 'physical id') socket = value as string;
    else cores.add(`${socket}/${value}`);
  }
  return cores.size === 0 ? undefined : cores.size;
}

/** os-release(5). */
function osRelease(): { readonly id: string; readonly family: string; readonly version: string } {
  const fields = new Map<string, string>();
  for (const [, key, value] of (readText('/etc/os-release') ?? '').matchAll(/^(\w+)="?([^"\n]*)"?$/gm)) {
    fields.set(key as string, value as string);
  }
  const id = fields.get('ID') ?? platform();
  return { id, family: fields.get('ID_LIKE') ?? id, version: fields.get('VERSION_ID') ?? release() };
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

function percentage(part: number, whole: number): number {
  return whole > 0 ? Math.min(100, Math.max(0, (part * 100) / whole)) : 0;
}
