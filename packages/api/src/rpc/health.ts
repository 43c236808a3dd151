import { PantalaError } from '@pantala/base';
import {
  Health,
  type HealthCheckResponse_ServingStatus,
  HealthCheckResponse_ServingStatus as Status,
} from '../gen/grpc/health/v1/health_pb.ts';
import { type ServedService, serve } from './handlers.ts';
import { MessageQueue } from './queue.ts';

/** What grpc.health.v1 says of a server (name "") and of its services by their full names. */
export class HealthBoard {
  readonly #serving = new Map<string, boolean>();
  readonly #watchers = new Set<() => void>();

  constructor(names: Iterable<string>) {
    for (const name of ['', ...names]) this.#serving.set(name, true);
  }

  /** Sets the state of one service, or of all of them with the server's own when `name` is left out. */
  set(serving: boolean, name?: string): void {
    for (const key of name === undefined ? [...this.#serving.keys()] : [name]) this.#serving.set(key, serving);
    for (const changed of this.#watchers) changed();
  }

  /** The service that tells it. */
  service(): ServedService {
    return serve(Health, {
      check: async ({ service }) => {
        const status = this.#status(service);
        if (status === undefined) throw new PantalaError('not-found', `no service "${service}" here`);
        return { status };
      },
      watch: (request, { signal }) => this.#watch(request.service, signal),
    });
  }

  #status(name: string): HealthCheckResponse_ServingStatus | undefined {
    const serving = this.#serving.get(name);
    if (serving === undefined) return undefined;
    return serving ? Status.SERVING : Status.NOT_SERVING;
  }

  async *#watch(name: string, signal: AbortSignal) {
    const changes = new MessageQueue<void>();
    const changed = () => changes.push();
    const stop = () => changes.end();
    this.#watchers.add(changed);
    signal.addEventListener('abort', stop, { once: true });
    try {
      let last: HealthCheckResponse_ServingStatus | undefined;
      changed();
      for await (const _ of changes) {
        const status = this.#status(name) ?? Status.SERVICE_UNKNOWN;
        if (status !== last) yield { status };
        last = status;
      }
    } finally {
      this.#watchers.delete(changed);
      signal.removeEventListener('abort', stop);
    }
  }
}
