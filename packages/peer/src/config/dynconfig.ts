import { address, type ConfigNode, ConfigReport, list, readConfig, section } from '@pantala/service';
import type { Address } from './peer-config.ts';

/** Upstream's `dynconfig.yaml`: the schedulers of a peer that has no manager. */
const dynconfigSchema = section(
  {
    scheduler: section({ addr: address(), addrs: list(address()) }),
  },
  {
    unused: {
      clientConfig: 'block lists are not applied',
      seedClientConfig: 'block lists are not applied',
    },
  },
);

export interface Dynconfig {
  /** A list wins over the single name, as upstream has it. */
  readonly schedulers: readonly Address[];
  readonly warnings: readonly string[];
}

/** @throws `failed-precondition` naming every mistake with its place; `not-found` when the file is not there */
export function readDynconfig(path: string): Dynconfig {
  const report = new ConfigReport();
  const node: ConfigNode = readConfig(path, report);
  const { scheduler } = dynconfigSchema.decode(node);
  report.throwIfBad();
  const schedulers = scheduler.addrs.length > 0 || scheduler.addr === undefined ? scheduler.addrs : [scheduler.addr];
  return { schedulers, warnings: report.warnings };
}
