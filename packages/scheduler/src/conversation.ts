import { MessageQueue, type pantalaV1 } from '@pantala/api';
import { type Logger, PantalaError } from '@pantala/base';
import type { Engine, HostAnswers } from './engine.ts';
import { heldTaskOf, reportOf } from './messages.ts';
import { MAX_HELD_TASKS_PER_MESSAGE } from './options.ts';

/** One Pantala host's stream: its digests and held tasks, and news for it. */
export class Conversation {
  readonly #engine: Engine;
  readonly #logger: Logger;
  readonly #answers: HostAnswers = new MessageQueue();
  #hostId: string | undefined;

  constructor(engine: Engine, logger: Logger) {
    this.#engine = engine;
    this.#logger = logger;
  }

  async *serve(
    requests: AsyncIterable<pantalaV1.ConverseRequest>,
  ): AsyncGenerator<pantalaV1.ConverseResponse, void, undefined> {
    void this.#read(requests);
    try {
      yield* this.#answers;
    } finally {
      this.#leave();
    }
  }

  async #read(requests: AsyncIterable<pantalaV1.ConverseRequest>): Promise<void> {
    try {
      for await (const message of requests) {
        if (this.#hostId === undefined) this.#open(message.hostId);
        this.#take(message);
        if (this.#answers.ended) return;
      }
      this.#leave();
      this.#answers.end();
    } catch (error) {
      this.#leave();
      this.#answers.fail(error);
    }
  }

  #open(hostId: string): void {
    this.#engine.openConversation(hostId, this.#answers);
    this.#hostId = hostId;
  }

  #leave(): void {
    const hostId = this.#hostId;
    this.#hostId = undefined;
    if (hostId !== undefined) this.#engine.closeConversation(hostId, this.#answers);
  }

  #take({ request }: pantalaV1.ConverseRequest): void {
    const hostId = this.#hostId as string;
    try {
      switch (request.case) {
        case 'heldTasks':
          this.#engine.dispatch({
            type: 'heldTasks',
            hostId,
            tasks: request.value.tasks.slice(0, MAX_HELD_TASKS_PER_MESSAGE).map(heldTaskOf),
            completeList: request.value.completeList,
          });
          break;
        case 'reportDigests':
          this.#engine.dispatch({
            type: 'digestsReported',
            hostId,
            taskId: request.value.taskId,
            report: reportOf(request.value),
          });
          break;
        case 'watchDigests':
          this.#engine.dispatch({ type: 'digestsWatched', hostId, taskId: request.value.taskId });
          break;
        case 'unwatchDigests':
          this.#engine.dispatch({ type: 'digestsUnwatched', hostId, taskId: request.value.taskId });
          break;
        case 'reportBadParent': {
          const { taskId, peerId, parentId, reason } = request.value;
          this.#logger.warn('bad parent reported', { hostId, taskId, peerId, parentId, reason });
          this.#engine.dispatch({ type: 'badParentReported', hostId, taskId, peerId, parentId });
          break;
        }
        case 'reportWholeDigestMismatch':
          this.#logger.warn('content does not have its digest', { hostId, taskId: request.value.taskId });
          this.#engine.dispatch({ type: 'wholeDigestMismatch', hostId, taskId: request.value.taskId });
          break;
        case undefined:
          break;
      }
    } catch (thrown) {
      // One message that goes beyond a limit does not end the stream: everything else still counts.
      const error = PantalaError.from(thrown);
      this.#logger.warn('message refused', { hostId, request: request.case, error: error.message });
    }
  }
}
