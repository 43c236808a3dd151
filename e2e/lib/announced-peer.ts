import { createClient, MessageQueue, type Received, type Sent, schedulerV2 } from '@pantala/api';
import { within } from '@pantala/testkit';
import type { Stage } from './stage.ts';

const SCHEDULER_PORT = 8002;
/** Milliseconds for each answer of the scheduler. */
const DEADLINE = 30_000;
const PIECE_LENGTH = 4 * 1024 * 1024;
const PIECES = 3;

type Said = NonNullable<Sent<typeof schedulerV2.AnnouncePeerRequestSchema>['request']>;
type Answer = Received<typeof schedulerV2.AnnouncePeerResponseSchema>['response'];
type Download = NonNullable<Sent<typeof schedulerV2.RegisterPeerRequestSchema>['download']>;

/** A connection to the stage's scheduler, as Dragonfly's programs have it. */
export function schedulerClient(stage: Stage) {
  const { address } = stage.swarm.scheduler.place;
  return createClient(schedulerV2.Scheduler, { host: address, port: SCHEDULER_PORT });
}

/** A peer that exists for the scheduler alone: a test says each message of its download by hand. */
export class AnnouncedPeer implements AsyncDisposable {
  readonly ids: { readonly hostId: string; readonly taskId: string; readonly peerId: string };
  readonly #client: ReturnType<typeof schedulerClient>;
  readonly #requests = new MessageQueue<Sent<typeof schedulerV2.AnnouncePeerRequestSchema>>();
  readonly #answers: AsyncIterator<{ readonly response: Answer }>;

  private constructor(stage: Stage, name: string, taskId: string) {
    this.ids = { hostId: name, taskId, peerId: `${name}-peer` };
    this.#client = schedulerClient(stage);
    // The requests never end: Dragonfly's clients keep their side of the stream open.
    this.#answers = this.#client.announcePeer(this.#requests)[Symbol.asyncIterator]();
  }

  static async start(stage: Stage, name: string, taskId: string): Promise<AnnouncedPeer> {
    const peer = new AnnouncedPeer(stage, name, taskId);
    const host = { id: name, hostname: name, ip: '127.0.0.1', port: 4000, downloadPort: 4005, type: 0 };
    await peer.#client.announceHost({ host });
    return peer;
  }

  say(request: Said): void {
    this.#requests.push({ ...this.ids, request });
  }

  register(download: Download = {}): void {
    const facts = {
      url: 'http://origin.test/file',
      actualContentLength: BigInt(PIECES * PIECE_LENGTH),
      actualPieceLength: BigInt(PIECE_LENGTH),
      actualPieceCount: BigInt(PIECES),
    };
    this.say({ case: 'registerPeerRequest', value: { download: { ...facts, ...download } } });
  }

  /** Fetches everything "from the origin". */
  async becomeCopy(): Promise<void> {
    this.register({ needBackToSource: true });
    const answer = await this.answer();
    if (answer?.case !== 'needBackToSourceResponse') throw new Error(`not ${answer?.case}`);
    this.say({ case: 'downloadPeerBackToSourceStartedRequest', value: {} });
    for (let number = 0; number < PIECES; number++) {
      const piece = { number, offset: BigInt(number * PIECE_LENGTH), length: BigInt(PIECE_LENGTH), digest: 'crc32:1' };
      this.say({ case: 'downloadPieceBackToSourceFinishedRequest', value: { piece } });
    }
    this.say({ case: 'downloadPeerBackToSourceFinishedRequest', value: {} });
    if ((await this.answer()) !== undefined) throw new Error('the stream did not end');
  }

  /** The next answer; undefined when the scheduler has ended the stream with OK. */
  async answer(): Promise<Answer | undefined> {
    const next = await within(DEADLINE, `${this.ids.peerId}: the scheduler answers`, this.#answers.next());
    return next.done === true ? undefined : next.value.response;
  }

  /** What the scheduler thinks of it; undefined while it does not know it. */
  async state(): Promise<string | undefined> {
    return (await this.#client.statPeer(this.ids).catch(() => undefined))?.state;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#requests.end();
    await this.#answers.return?.();
    this.#client[Symbol.dispose]();
  }
}
