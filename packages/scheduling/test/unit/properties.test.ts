import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Decision, Peer, SchedulerEvent } from '../../src/index.ts';
import { SCHEDULING_DEFAULTS, SchedulerCore } from '../../src/index.ts';
import { only, PIECE_LENGTH, TASK, World } from './world.ts';

const HOSTS = ['seed-a', 'seed-b', 'p1', 'p2', 'p3', 'u1', 'u2', 'u3', 'u4'];
const TASKS = ['task-1', 'task-2'];
const OPTIONS = {
  uploadLimit: 2,
  seedUploadLimit: 3,
  candidateParentLimit: 2,
  meshParentLimit: 3,
  backToSourceCount: 1,
};

const host = fc.constantFrom(...HOSTS);
const of = { hostId: host, taskId: fc.constantFrom(...TASKS) };

/** Raw events name the host's one peer of a task; a parent is named by its host. */
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('register' as const), ...of, flags: fc.nat(15) }) },
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'peerStarted',
        'backToSourceStarted',
        'peerFinished',
        'backToSourceFinished',
        'peerFailed',
        'backToSourceFailed',
        'streamClosed',
        'peerDeleted',
      ),
      ...of,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom('pieceFinished', 'pieceFailed', 'rescheduled', 'badParentReported'),
      ...of,
      parent: host,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom('hostAnnounced', 'hostDeleted', 'hostConnected', 'hostDisconnected'),
      hostId: host,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('held' as const), ...of, blocks: fc.constantFrom(0, 3, 1024) }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('triggered', 'triggerFailed', 'triggerLost'), ...of }) },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('pass' as const),
      milliseconds: fc.constantFrom(10, 300, 2_500, 12_000, 40_000),
    }),
  },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

function facts() {
  return { contentLength: 4 * PIECE_LENGTH, pieceLength: PIECE_LENGTH, digest: undefined };
}

function eventOf(raw: Step): SchedulerEvent | undefined {
  if (!('hostId' in raw)) return undefined;
  const { hostId } = raw;
  const seed = hostId.startsWith('seed');
  switch (raw.kind) {
    case 'hostAnnounced':
      return {
        type: 'hostAnnounced',
        host: {
          id: hostId,
          seed,
          idc: seed ? 'x' : 'y',
          location: '',
          disableShared: hostId === 'u4',
          announceIntervalMs: 0,
        },
      };
    case 'hostDeleted':
    case 'hostDisconnected':
      return { type: raw.kind, hostId };
    case 'hostConnected':
      return hostId.startsWith('u') ? undefined : { type: 'hostConnected', hostId };
    default:
  }
  if (!('taskId' in raw)) return undefined;
  const ids = { hostId, taskId: raw.taskId, peerId: `${hostId}-peer` };
  const parentId = 'parent' in raw ? `${raw.parent}-peer` : '';
  switch (raw.kind) {
    case 'register':
      return {
        type: 'peerRegistered',
        ...ids,
        facts: facts(),
        range: (raw.flags & 3) === 3 ? { start: 0, length: 4096 } : undefined,
        metadataOnly: raw.flags === 14,
        needBackToSource: seed || raw.flags === 13,
        disableBackToSource: (raw.flags & 12) === 4,
      };
    case 'pieceFinished':
      return { type: 'pieceFinished', ...ids, length: PIECE_LENGTH, costMs: 20, parentId };
    case 'pieceFailed':
    case 'badParentReported':
      return { type: raw.kind, ...ids, parentId };
    case 'rescheduled':
      return { type: 'rescheduled', ...ids, badParentIds: [parentId] };
    case 'held':
      return {
        type: 'heldTasks',
        hostId,
        tasks: [{ ...ids, facts: facts(), blockCount: raw.blocks, report: undefined }],
        completeList: true,
      };
    case 'triggered':
      return { type: 'seedTriggerEnded', taskId: raw.taskId, seedHostId: hostId, error: undefined };
    case 'triggerFailed':
      return { type: 'seedTriggerEnded', taskId: raw.taskId, seedHostId: hostId, error: 'origin' };
    case 'triggerLost':
      return { type: 'seedTriggerEnded', taskId: raw.taskId, seedHostId: hostId, error: 'unavailable' };
    default:
      return { type: raw.kind, ...ids } as SchedulerEvent;
  }
}

/** Drives a core and checks after every event what must always hold. */
class Checker {
  readonly core = new SchedulerCore(OPTIONS);
  readonly log: Decision[] = [];
  readonly #registered = new Map<string, number>();
  /** Children's permanent refusals, by `task peer`. */
  readonly #refused = new Map<string, Set<string>>();
  readonly #triggers = new Map<string, { seed: string; count: number }>();
  now = 0;

  run(steps: readonly Step[]): void {
    for (const id of HOSTS) this.send(eventOf({ kind: 'hostAnnounced', hostId: id }) as SchedulerEvent);
    for (const id of HOSTS) if (!id.startsWith('u')) this.send({ type: 'hostConnected', hostId: id });
    for (const raw of steps) {
      if (raw.kind === 'pass') this.pass(raw.milliseconds);
      else {
        const event = eventOf(raw);
        if (event !== undefined) this.send(event);
      }
    }
  }

  pass(milliseconds: number): void {
    const until = this.now + milliseconds;
    for (let ticks = 0; this.core.nextTickAt <= until; ticks++) {
      expect(ticks).toBeLessThan(100_000);
      this.now = Math.max(this.now, this.core.nextTickAt);
      this.send({ type: 'tick' });
    }
    this.now = until;
  }

  send(event: SchedulerEvent): void {
    this.#before(event);
    const decisions = this.core.handle(event, this.now);
    this.log.push(...decisions);
    for (const decision of decisions) this.#check(decision);
    this.#checkState();
  }

  #before(event: SchedulerEvent): void {
    if (event.type === 'badParentReported') {
      const peer = this.core.peer(event.taskId, event.peerId);
      const parent = this.core.peer(event.taskId, event.parentId);
      if (peer?.host.id !== event.hostId || parent === undefined || parent.host === peer.host) return;
      const key = `${event.taskId} ${event.peerId}`;
      this.#refused.set(key, (this.#refused.get(key) ?? new Set()).add(parent.host.id));
    }
    if ('peerId' in event && event.type !== 'peerRegistered') {
      if (/Finished|Failed|Closed|Deleted|SourceStarted/.test(event.type) && !event.type.startsWith('piece')) {
        this.#registered.delete(`${event.taskId} ${event.peerId}`);
      }
    }
    if (event.type === 'peerRegistered') this.#registered.set(`${event.taskId} ${event.peerId}`, this.now);
    if (event.type === 'seedTriggerEnded') {
      const running = this.#triggers.get(event.taskId);
      if (running?.seed === event.seedHostId) {
        running.count--;
        if (running.count === 0) this.#triggers.delete(event.taskId);
      }
    }
  }

  #check(decision: Decision): void {
    if ('peerId' in decision) this.#registered.delete(`${decision.taskId} ${decision.peerId}`);
    if (decision.type === 'sendParents') {
      const child = this.core.peer(decision.taskId, decision.peerId) as Peer;
      expect(decision.parents.length).toBeGreaterThan(0);
      expect(new Set(decision.parents.map(({ hostId }) => hostId)).size).toBe(decision.parents.length);
      for (const { hostId } of decision.parents) {
        expect(hostId).not.toBe(child.host.id);
        expect(hostId).not.toBe('u4');
        expect(this.#refused.get(`${decision.taskId} ${decision.peerId}`)?.has(hostId) ?? false).toBe(false);
        expect(child.task.blockedHosts.has(hostId)).toBe(false);
      }
    }
    if (decision.type === 'triggerSeed') {
      const running = this.#triggers.get(decision.taskId) ?? { seed: decision.seedHostId, count: 0 };
      const lost = this.core.host(running.seed)?.connected !== true;
      expect(lost || running.seed === decision.seedHostId).toBe(true);
      this.#triggers.set(decision.taskId, {
        seed: decision.seedHostId,
        count: running.seed === decision.seedHostId ? running.count + 1 : 1,
      });
    }
  }

  #checkState(): void {
    for (const known of this.core.hosts()) {
      expect(known.uploads).toBeGreaterThanOrEqual(0);
      expect(known.uploads).toBeLessThanOrEqual(known.seed ? OPTIONS.seedUploadLimit : OPTIONS.uploadLimit);
    }
    for (const task of this.core.tasks()) {
      expect(task.granted.size).toBeLessThanOrEqual(OPTIONS.backToSourceCount);
      for (const peer of task.peers.values()) {
        for (const parent of peer.parents) expect(parent.children.has(peer)).toBe(true);
        if (!peer.pantala) expect(reaches(peer, peer)).toBe(false);
        if (peer.waitingSince !== undefined) expect(peer.streaming).toBe(true);
      }
    }
  }

  /** Every peer that asked is answered within the time that is promised. */
  checkLiveness(): void {
    this.pass(3 * SCHEDULING_DEFAULTS.giveUpMs);
    expect([...this.#registered.keys()].filter((key) => this.#isOpen(key))).toEqual([]);
    expect(this.core.counts.waiting).toBe(0);
  }

  #isOpen(key: string): boolean {
    const [taskId = '', peerId = ''] = key.split(' ');
    return this.core.peer(taskId, peerId)?.streaming === true;
  }

  checkEmptiness(): void {
    for (const id of HOSTS) this.send({ type: 'hostDeleted', hostId: id });
    for (const [taskId, { seed, count }] of Array.from(this.#triggers)) {
      for (let left = count; left > 0; left--) {
        this.send({ type: 'seedTriggerEnded', taskId, seedHostId: seed, error: 'cancelled' });
      }
    }
    this.pass(60_000);
    expect(this.core.counts).toEqual({ hosts: 0, tasks: 0, peers: 0, edges: 0, waiting: 0, digestBytes: 0 });
  }
}

/** Whether what `from` waits for leads to `to`. */
function reaches(from: Peer, to: Peer): boolean {
  const seen = new Set<Peer>(from.parents);
  for (const peer of seen) {
    if (peer === to) return true;
    for (const parent of peer.parents) seen.add(parent);
  }
  return false;
}

describe('over any sequence of events', () => {
  const steps = fc.array(step, { maxLength: 120 });

  test('no cycles, slots kept, no bad parents, one seed, origin limit, everybody answered, nothing left over', () => {
    fc.assert(
      fc.property(steps, (raw) => {
        const checker = new Checker();
        checker.run(raw);
        checker.checkLiveness();
        checker.checkEmptiness();
      }),
      { numRuns: 400 },
    );
  });

  test('the same of Dragonfly peers alone that run, wait for each other and ask anew', () => {
    const dragonfly = { hostId: fc.constantFrom('u1', 'u2', 'u3', 'u5', 'u6', 'u7'), taskId: fc.constant('task-1') };
    const change: fc.Arbitrary<Step> = fc.oneof(
      {
        weight: 3,
        arbitrary: fc.record({
          kind: fc.constantFrom('rescheduled', 'pieceFinished'),
          ...dragonfly,
          parent: dragonfly.hostId,
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({ kind: fc.constant('register' as const), ...dragonfly, flags: fc.constant(0) }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('peerStarted', 'peerFailed'), ...dragonfly }) },
      {
        weight: 1,
        arbitrary: fc.record({ kind: fc.constant('pass' as const), milliseconds: fc.constant(300 as const) }),
      },
    );
    fc.assert(
      fc.property(fc.array(change, { minLength: 20, maxLength: 80 }), (raw) => {
        const checker = new Checker();
        const begun: Step[] = ['u1', 'u2', 'u3', 'u5', 'u6', 'u7'].flatMap((hostId): Step[] => [
          { kind: 'hostAnnounced', hostId },
          { kind: 'register', hostId, taskId: 'task-1', flags: 0 },
          { kind: hostId === 'u1' ? 'backToSourceStarted' : 'peerStarted', hostId, taskId: 'task-1' },
          { kind: 'pieceFinished', hostId, taskId: 'task-1', parent: 'u1' },
        ]);
        checker.run([
          ...['seed-a', 'seed-b'].map((hostId): Step => ({ kind: 'hostDeleted', hostId })),
          ...begun,
          ...raw,
        ]);
        checker.checkLiveness();
      }),
      { numRuns: 150 },
    );
  });

  test('a seed that is to fetch the whole is sent to all who hold some of it, and to the origin unless one holds all', () => {
    const BLOCKS = { none: 0, part: 3, whole: 1024 };
    const holder = fc.record({
      held: fc.constantFrom<keyof typeof BLOCKS>('none', 'part', 'whole'),
      seed: fc.boolean(),
      pantala: fc.boolean(),
      sharing: fc.boolean(),
      gone: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(holder, { maxLength: 6 }), fc.boolean(), (holders, triggered) => {
        const world = new World();
        const told = { facts: facts(), report: undefined, taskId: TASK };
        for (const [index, { held, seed, pantala, sharing }] of holders.entries()) {
          const hostId = `holder-${index}`;
          world.host(hostId, { pantala, seed: seed && held !== 'none', disableShared: !sharing });
          const tasks = [{ ...told, peerId: `${hostId}-peer`, blockCount: BLOCKS[held] }];
          if (pantala && held !== 'none') world.send({ type: 'heldTasks', hostId, tasks, completeList: false });
        }
        for (const [index, { gone }] of holders.entries()) {
          if (gone) world.send({ type: 'hostDeleted', hostId: `holder-${index}` });
        }
        const useful = (held: 'part' | 'whole'): string[] =>
          holders.flatMap((one, index) =>
            one.held === held && one.pantala && one.sharing && !one.gone ? [`holder-${index}`] : [],
          );
        const [parts, copies] = [useful('part'), useful('whole')];
        world.host('seed', { seed: true, pantala: true });
        world.host('reader', { pantala: true });
        const [trigger] = only(world.register('reader', { facts: facts() }), 'triggerSeed');
        // Where another seed with a part is at work, or somebody has all of it, that one is enough.
        if (trigger !== undefined) {
          expect(copies).toEqual([]);
          const dragonfly = world.core.host(trigger.seedHostId)?.pantala === false;
          const alone = parts.every((id) => id === trigger.seedHostId);
          expect(trigger.needBackToSource).toBe(dragonfly || alone);
        }
        const needBackToSource = triggered && trigger?.needBackToSource === true;
        const answers = world
          .register('seed', { facts: facts(), needBackToSource })
          .filter((decision) => 'peerId' in decision && decision.peerId === 'seed-peer');
        const offered = only(answers, 'sendParents').flatMap(({ parents }) => parents.map(({ hostId }) => hostId));
        if (!needBackToSource) expect(offered.toSorted()).toEqual([...parts, ...copies].toSorted());
        const fetches = needBackToSource || copies.length === 0;
        expect(only(answers, 'needBackToSource')).toHaveLength(fetches ? 1 : 0);
      }),
      { numRuns: 300 },
    );
  });

  test('the same events give the same decisions', () => {
    fc.assert(
      fc.property(steps, (raw) => {
        const one = new Checker();
        const other = new Checker();
        one.run(raw);
        other.run(raw);
        expect(one.log).toEqual(other.log);
      }),
      { numRuns: 60 },
    );
  });
});
