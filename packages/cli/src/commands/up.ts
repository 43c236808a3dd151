import { join } from 'node:path';
import { createLogger, runProgram } from '@pantala/service';
import { type CommonOptions, note, print, printJson } from '../output.ts';
import { planSwarm } from '../up/plan.ts';
import { type RunningSwarm, startSwarm } from '../up/swarm.ts';
import { readValues } from '../up/values.ts';

interface UpOptions extends CommonOptions {
  readonly file?: string;
  readonly dir?: string;
  readonly peers: number;
}

/** Two stages of children stop one after the other, each in its own deadline. */
const STOP_DEADLINE = 30_000;

export async function up(options: UpOptions): Promise<number> {
  const values = readValues(options.file);
  for (const warning of values.warnings) note(`pantala up: ${warning}`);
  const plan = await planSwarm(values, options.dir, options.peers);
  using logger = createLogger({ verbose: false, console: false, file: join(plan.places.logs, 'up', 'core.log') });
  return await runProgram({
    name: 'up',
    logger,
    stopDeadlineMs: STOP_DEADLINE,
    start: (signal) => startSwarm(plan, values.containerd, { logger, signal }),
    ready: (running) => {
      sayContainerd(running, options);
      const { peers, seed, scheduler, manager } = plan;
      if (options.json === true) printJson({ ready: true, peers, seed, scheduler, manager });
      else {
        for (const { name, proxy, socket, log } of [...peers, ...(seed === undefined ? [] : [seed])]) {
          print(`${name}: proxy ${proxy}, socket ${socket}, log ${log}`);
        }
        print(`scheduler: ${scheduler}`);
        if (manager !== undefined) print(`manager: ${manager}`);
      }
    },
  });
}

/** On stderr: stdout has one line with --json. */
function sayContainerd({ mirror }: RunningSwarm, options: UpOptions): void {
  if (mirror === undefined) return;
  for (const path of mirror.written) note(`wrote ${path}`);
  if (options.dir !== undefined) {
    note(`for containerd to use them, the registry section of its CRI plug-in says: ${mirror.configLine}`);
  } else if (mirror.restartNeeded) {
    note('containerd’s configuration has changed; for it to take effect: systemctl restart containerd');
  }
}
