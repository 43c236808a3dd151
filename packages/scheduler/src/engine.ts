import { type commonV2, create, type MessageQueue, pantalaV1, RpcError, schedulerV2 } from '@pantala/api';
import { type Logger, MAX_TIMER_DELAY, monotonicNow, PantalaError } from '@pantala/base';
import { type Decision, SchedulerCore, type SchedulerEvent, type SchedulingOptions } from '@pantala/scheduling';
import { hostCard, newsMessage, peerMessage, taskMessage } from './messages.ts';

export type PeerAnswers = MessageQueue<schedulerV2.AnnouncePeerResponse>;
export type HostAnswers = MessageQueue<pantalaV1.ConverseResponse>;

/** A decision to have a seed fetch a task. */
export type SeedTrigger = Extract<Decision, { type: 'triggerSeed' }>;

/** gRPC's code for a stream that a newer one has replaced. */
const ABORTED = 10;

interface KnownHost {
  readonly announced: commonV2.Host;
  readonly card: commonV2.Host;
}

/** The core with a clock, a timer and streams: events become decisions, and decisions messages. */
export class Engine implements Disposable {
  readonly core: SchedulerCore;
  readonly #logger: Logger;
  readonly #hosts = new Map<string, KnownHost>();
  /** Streams of peers, by task and peer. */
  readonly #peers = new Map<string, PeerAnswers>();
  readonly #conversations = new Map<string, HostAnswers>();
  #onTrigger: (trigger: SeedTrigger) => void = () => {};
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #disposed = false;

  constructor(options: SchedulingOptions, logger: Logger) {
    this.core = new SchedulerCore(options);
    this.#logger = logger;
  }

  onTrigger(carryOut: (trigger: SeedTrigger) => void): void {
    this.#onTrigger = carryOut;
  }

  /** Takes an event and does what the core decides. */
  dispatch(event: SchedulerEvent): void {
    if (this.#disposed) return;
    try {
      for (const decision of this.core.handle(event, monotonicNow())) this.#carryOut(decision);
    } finally {
      this.#arm();
    }
  }

  announce(host: commonV2.Host): void {
    this.#hosts.set(host.id, { announced: host, card: hostCard(host) });
  }

  /** As announced last. */
  host(hostId: string): commonV2.Host | undefined {
    return this.#hosts.get(hostId)?.announced;
  }

  card(hostId: string): commonV2.Host | undefined {
    return this.#hosts.get(hostId)?.card;
  }

  /** A peer's stream takes the place of an earlier one of the same peer. */
  openPeer(taskId: string, peerId: string, answers: PeerAnswers): void {
    const key = peerKey(taskId, peerId);
    const earlier = this.#peers.get(key);
    this.#peers.set(key, answers);
    if (earlier !== answers) earlier?.fail(replaced('peer'));
  }

  /** Whether the stream was still the peer's. */
  closePeer(taskId: string, peerId: string, answers: PeerAnswers): boolean {
    const key = peerKey(taskId, peerId);
    return this.#peers.get(key) === answers && this.#peers.delete(key);
  }

  /** @throws `failed-precondition` when the host was not announced */
  openConversation(hostId: string, answers: HostAnswers): void {
    if (this.core.host(hostId) === undefined) {
      throw new PantalaError('failed-precondition', `host ${hostId} is not known; announce it first`);
    }
    const earlier = this.#conversations.get(hostId);
    this.#conversations.set(hostId, answers);
    if (earlier !== undefined) {
      earlier.fail(replaced('host'));
      this.dispatch({ type: 'hostDisconnected', hostId });
    }
    this.dispatch({ type: 'hostConnected', hostId });
  }

  closeConversation(hostId: string, answers: HostAnswers): void {
    if (this.#conversations.get(hostId) !== answers) return;
    this.#conversations.delete(hostId);
    this.dispatch({ type: 'hostDisconnected', hostId });
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    clearTimeout(this.#timer);
  }

  #carryOut(decision: Decision): void {
    switch (decision.type) {
      case 'sendParents':
        this.#answer(decision, { case: 'normalTaskResponse', value: this.#parents(decision) });
        break;
      case 'needBackToSource':
        this.#answer(decision, {
          case: 'needBackToSourceResponse',
          value: create(schedulerV2.NeedBackToSourceResponseSchema, { description: decision.description }),
        });
        break;
      case 'emptyTask':
        this.#answer(decision, { case: 'emptyTaskResponse', value: create(schedulerV2.EmptyTaskResponseSchema) });
        break;
      case 'metadataOnly':
        this.#answer(decision, { case: 'metadataOnlyResponse', value: create(schedulerV2.MetadataOnlyResponseSchema) });
        break;
      case 'failPeer':
        this.#takePeer(decision)?.fail(new PantalaError(decision.code, decision.message));
        break;
      case 'closeStream':
        this.#takePeer(decision)?.end();
        break;
      case 'triggerSeed':
        this.#onTrigger(decision);
        break;
      case 'digestNews':
        this.#tell(decision.hostIds, {
          case: 'digestNews',
          value: newsMessage(decision.news),
        });
        break;
      case 'digestsVoid':
        this.#tell(decision.hostIds, {
          case: 'digestsVoid',
          value: create(pantalaV1.DigestsVoidSchema, { taskId: decision.taskId }),
        });
        break;
      case 'heldTasksWanted':
        this.#tell([decision.hostId], { case: 'heldTasksWanted', value: create(pantalaV1.HeldTasksWantedSchema) });
        break;
      case 'company':
        this.#tell([decision.hostId], {
          case: 'company',
          value: create(pantalaV1.CompanySchema, { alone: decision.alone }),
        });
        break;
      case 'hostForgotten':
        this.#hosts.delete(decision.hostId);
        this.#conversations
          .get(decision.hostId)
          ?.fail(new PantalaError('failed-precondition', `host ${decision.hostId} was forgotten; announce it again`));
        this.#conversations.delete(decision.hostId);
        break;
    }
  }

  #parents({ taskId, parents }: Extract<Decision, { type: 'sendParents' }>): schedulerV2.NormalTaskResponse {
    const task = this.core.task(taskId);
    const known = task === undefined ? undefined : taskMessage(task);
    const candidateParents = parents.flatMap(({ peerId, hostId }) => {
      const peer = this.core.peer(taskId, peerId);
      return peer === undefined || known === undefined ? [] : [peerMessage(peer, this.card(hostId), known)];
    });
    return create(schedulerV2.NormalTaskResponseSchema, { candidateParents });
  }

  #answer(of: { taskId: string; peerId: string }, response: schedulerV2.AnnouncePeerResponse['response']): void {
    const key = peerKey(of.taskId, of.peerId);
    const answers = this.#peers.get(key);
    if (answers === undefined) return;
    try {
      answers.push(create(schedulerV2.AnnouncePeerResponseSchema, { response }));
    } catch (error) {
      answers.fail(error);
    }
  }

  #takePeer(of: { taskId: string; peerId: string }): PeerAnswers | undefined {
    const key = peerKey(of.taskId, of.peerId);
    const answers = this.#peers.get(key);
    this.#peers.delete(key);
    return answers;
  }

  #tell(hostIds: readonly string[], response: pantalaV1.ConverseResponse['response']): void {
    const message = create(pantalaV1.ConverseResponseSchema, { response });
    for (const hostId of hostIds) {
      const answers = this.#conversations.get(hostId);
      try {
        answers?.push(message);
      } catch (error) {
        // Its reader has stopped; the host connects again and gets everything anew.
        this.#logger.warn('conversation dropped', { hostId, error });
        answers?.fail(error);
      }
    }
  }

  /** One timer for the core's next tick. */
  #arm(): void {
    const at = this.core.nextTickAt;
    if (at === this.#timerAt || this.#disposed) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    if (at === Number.POSITIVE_INFINITY) return;
    const delay = Math.min(Math.max(0, Math.ceil(at - monotonicNow())), MAX_TIMER_DELAY);
    this.#timer = setTimeout(() => {
      this.#timerAt = Number.POSITIVE_INFINITY;
      this.dispatch({ type: 'tick' });
    }, delay);
  }
}

function peerKey(taskId: string, peerId: string): string {
  return `${taskId} ${peerId}`;
}

function replaced(what: string): RpcError {
  return new RpcError('cancelled', `a newer stream of the same ${what} was opened`, ABORTED);
}
