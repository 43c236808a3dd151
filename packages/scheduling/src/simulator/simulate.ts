import { SchedulerCore } from '../core.ts';
import type { Decision } from '../decisions.ts';
import type { SchedulerEvent } from '../events.ts';
import { hash32 } from '../hash.ts';
import type { SchedulingOptions } from '../options.ts';
import { type Link, Node, UNIT_LENGTH } from './node.ts';
import { Timeline } from './timeline.ts';

/** What is simulated. Rates are bytes a second, times milliseconds. */
export interface Scenario {
  readonly peers: number;
  /** 0: the peers have to go to the origin. */
  readonly seeds: number;
  readonly contentLength: number;
  readonly link: Link;
  readonly seedLink?: Link;
  /** What the origin gives one fetcher. */
  readonly originRate: number;
  /** Peers begin at times spread over this; 0: all at once. */
  readonly arrival?: number;
  /** The first seed that was triggered dies then. */
  readonly seedDiesAt?: number;
  /** Moves the times of arrival; the same number gives the same run. */
  readonly random?: number;
  readonly scheduling?: SchedulingOptions;
  /** The simulation ends then, whatever is missing. */
  readonly limit?: number;
}

export interface SimulationResult {
  /** When the last peer had everything. */
  readonly makespan: number;
  /** The shortest time in which it could have been done. */
  readonly bound: number;
  readonly finished: number;
  /** Bytes that the origin gave, in lengths of the content. */
  readonly originCopies: number;
  /** Jain's index of what the peers uploaded: 1 when all gave the same. */
  readonly fairness: number;
  readonly events: number;
  /** Milliseconds of real time that the core took for an event: the slowest in a hundred. Only with a clock. */
  readonly decisionP99: number | undefined;
}

const TASK = 'simulated-task';
const PIECE_LENGTH = 4 * 1024 * 1024;
const UNITS_PER_PIECE = PIECE_LENGTH / UNIT_LENGTH;
const DEFAULT_LIMIT = 3_600_000;

/**
 * Runs the scheduler's own core with simulated machines under virtual time: every peer wants the whole content at
 * about the same time. Child selection follows the swarm's rules, simplified to units of 256 KiB.
 *
 * @param clock real time in milliseconds, to measure the core's decisions
 */
export function simulate(scenario: Scenario, clock?: () => number): SimulationResult {
  return new Simulation(scenario, clock).run();
}

class Simulation {
  readonly #scenario: Scenario;
  readonly #clock: (() => number) | undefined;
  readonly #core: SchedulerCore;
  readonly #timeline = new Timeline();
  readonly #nodes = new Map<string, Node>();
  readonly #units: number;
  readonly #pieces = new Map<Node, Uint16Array>();
  readonly #fetching = new Set<Node>();
  readonly #costs: number[] = [];
  #originUnits = 0;
  #events = 0;
  #left: number;
  #tickAt = Number.POSITIVE_INFINITY;

  constructor(scenario: Scenario, clock: (() => number) | undefined) {
    this.#scenario = scenario;
    this.#clock = clock;
    this.#core = new SchedulerCore(scenario.scheduling);
    this.#units = Math.ceil(scenario.contentLength / UNIT_LENGTH);
    this.#left = scenario.peers;
  }

  run(): SimulationResult {
    const { peers, seeds, link, seedLink = link, arrival = 0, random = 0, limit = DEFAULT_LIMIT } = this.#scenario;
    for (let seed = 0; seed < seeds; seed++) this.#join(`seed-${seed}`, true, seedLink);
    for (let peer = 0; peer < peers; peer++) {
      const id = `peer-${peer}`;
      const node = this.#join(id, false, link);
      this.#timeline.after((hash32(id, random) / 2 ** 32) * arrival, () => this.#register(node, false));
    }
    while (this.#left > 0 && this.#timeline.step(limit)) {
      // Everything happens in the steps.
    }
    return this.#result();
  }

  #join(id: string, seed: boolean, link: Link): Node {
    const node = new Node(id, seed, link, this.#units, this.#timeline, (holder, unit, from) =>
      this.#held(holder, unit, from),
    );
    this.#nodes.set(id, node);
    this.#pieces.set(node, new Uint16Array(Math.ceil(this.#units / UNITS_PER_PIECE)));
    const host = { id, seed, idc: '', location: '', disableShared: false, announceIntervalMs: 0 };
    this.#tell({ type: 'hostAnnounced', host });
    this.#tell({ type: 'hostConnected', hostId: id });
    this.#tell({ type: 'heldTasks', hostId: id, tasks: [], completeList: true });
    return node;
  }

  #register(node: Node, needBackToSource: boolean): void {
    this.#tell({
      type: 'peerRegistered',
      ...ids(node),
      facts: { contentLength: this.#scenario.contentLength, pieceLength: PIECE_LENGTH, digest: undefined },
      range: undefined,
      metadataOnly: false,
      needBackToSource,
      disableBackToSource: false,
    });
    this.#tell({ type: needBackToSource ? 'backToSourceStarted' : 'peerStarted', ...ids(node) });
  }

  #tell(event: SchedulerEvent): void {
    const begun = this.#clock?.();
    const decisions = this.#core.handle(event, this.#timeline.now);
    if (begun !== undefined) this.#costs.push((this.#clock as () => number)() - begun);
    this.#events++;
    for (const decision of decisions) this.#timeline.after(0, () => this.#carryOut(decision));
    this.#planTick();
  }

  #planTick(): void {
    const at = this.#core.nextTickAt;
    if (at === Number.POSITIVE_INFINITY || at >= this.#tickAt) return;
    this.#tickAt = at;
    this.#timeline.after(at - this.#timeline.now, () => {
      if (this.#tickAt !== at) return;
      this.#tickAt = Number.POSITIVE_INFINITY;
      this.#tell({ type: 'tick' });
    });
  }

  #carryOut(decision: Decision): void {
    if (decision.type === 'sendParents') {
      const node = this.#peer(decision.peerId);
      node.follow(decision.parents.map(({ hostId }) => this.#nodes.get(hostId) as Node));
    } else if (decision.type === 'needBackToSource') {
      this.#fetch(this.#peer(decision.peerId), 0);
    } else if (decision.type === 'triggerSeed') {
      this.#trigger(this.#nodes.get(decision.seedHostId) as Node);
    }
  }

  #peer(peerId: string): Node {
    return this.#nodes.get(peerId.replace(/^peer-of-/, '')) as Node;
  }

  #trigger(seed: Node): void {
    if (!seed.alive) {
      this.#tell({ type: 'seedTriggerEnded', taskId: TASK, seedHostId: seed.id, error: 'unavailable' });
      return;
    }
    this.#register(seed, true);
    const { seedDiesAt } = this.#scenario;
    if (seedDiesAt === undefined || [...this.#nodes.values()].some((node) => !node.alive)) return;
    this.#timeline.after(seedDiesAt - this.#timeline.now, () => this.#kill(seed));
  }

  #kill(seed: Node): void {
    seed.die();
    this.#tell({ type: 'streamClosed', ...ids(seed) });
    this.#tell({ type: 'hostDisconnected', hostId: seed.id });
    this.#tell({ type: 'seedTriggerEnded', taskId: TASK, seedHostId: seed.id, error: 'unavailable' });
  }

  /** Fetches in sequence what this node lacks and none of its parents has. */
  #fetch(node: Node, from: number): void {
    if (from === 0 && this.#fetching.has(node)) return;
    this.#fetching.add(node);
    let unit = from;
    while (unit < this.#units && !node.lacks(unit)) unit++;
    if (unit >= this.#units || !node.alive) {
      this.#fetching.delete(node);
      return;
    }
    this.#timeline.after((UNIT_LENGTH * 1000) / Math.min(this.#scenario.originRate, node.link.down), () => {
      this.#originUnits++;
      node.receive(unit, undefined);
      this.#fetch(node, unit + 1);
    });
  }

  #held(node: Node, unit: number, from: Node | undefined): void {
    const piece = Math.floor(unit / UNITS_PER_PIECE);
    const counts = this.#pieces.get(node) as Uint16Array;
    counts[piece] = (counts[piece] as number) + 1;
    const wanted = Math.min(UNITS_PER_PIECE, this.#units - piece * UNITS_PER_PIECE);
    if (counts[piece] === wanted) {
      this.#tell({
        type: 'pieceFinished',
        ...ids(node),
        length: wanted * UNIT_LENGTH,
        costMs: from === undefined ? 0 : (UNIT_LENGTH * 1000) / from.link.up,
        parentId: from === undefined ? undefined : ids(from).peerId,
      });
    }
    if (node.held.count < this.#units) return;
    node.finishedAt = this.#timeline.now;
    this.#tell({ type: 'peerFinished', ...ids(node) });
    if (node.seed) this.#tell({ type: 'seedTriggerEnded', taskId: TASK, seedHostId: node.id, error: undefined });
    else this.#left--;
  }

  #result(): SimulationResult {
    const peers = [...this.#nodes.values()].filter((node) => !node.seed);
    const done = peers.filter((node) => node.finishedAt !== undefined);
    const uploads = peers.map((node) => node.uploaded);
    const sum = uploads.reduce((total, bytes) => total + bytes, 0);
    const squares = uploads.reduce((total, bytes) => total + bytes * bytes, 0);
    const costs = this.#costs.sort((a, b) => a - b);
    return {
      makespan: Math.max(0, ...done.map((node) => node.finishedAt as number)),
      bound: boundOf(this.#scenario),
      finished: done.length,
      originCopies: this.#originUnits / this.#units,
      fairness: squares === 0 ? 1 : (sum * sum) / (uploads.length * squares),
      events: this.#events,
      decisionP99: costs[Math.floor(costs.length * 0.99)],
    };
  }
}

function ids(node: Node): { hostId: string; taskId: string; peerId: string } {
  return { hostId: node.id, taskId: TASK, peerId: `peer-of-${node.id}` };
}

/** The source must send everything once, each peer must receive it, and all uplinks together carry all copies. */
function boundOf({ peers, seeds, contentLength, link, seedLink = link, originRate }: Scenario): number {
  const source = seeds > 0 ? Math.min(originRate, seedLink.up) : originRate;
  const uplinks = (seeds > 0 ? seedLink.up : originRate) + peers * link.up;
  const seconds = Math.max(contentLength / source, contentLength / link.down, (peers * contentLength) / uplinks);
  return seconds * 1000;
}
