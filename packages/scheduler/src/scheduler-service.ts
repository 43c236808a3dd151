import { durationMs, pantalaV1, type ServedService, schedulerV2, serve } from '@pantala/api';
import { type Logger, PantalaError } from '@pantala/base';
import { PeerStream } from './announce-peer.ts';
import { Conversation } from './conversation.ts';
import type { Engine } from './engine.ts';
import { factsOfHost, peerMessage, taskMessage } from './messages.ts';
import type { CallMetrics, SchedulerMetrics } from './metrics.ts';
import { MAX_ID_LENGTH } from './options.ts';

/** Throws `resource-exhausted` when there are too many calls. */
export type Admit = () => void;

/** scheduler.v2.Scheduler. Persistent tasks, cache tasks and preheating have their place here and answer UNIMPLEMENTED. */
export function schedulerService(
  engine: Engine,
  metrics: SchedulerMetrics,
  admit: Admit,
  logger: Logger,
): ServedService {
  return serve(schedulerV2.Scheduler, {
    announcePeer: (requests) => {
      admit();
      return new PeerStream(engine, metrics, logger).serve(requests);
    },
    announceHost: (request) =>
      counted(metrics.announceHost, admit, () => {
        const { host } = request;
        if (host === undefined || host.id === '' || host.id.length > MAX_ID_LENGTH) {
          throw new PantalaError('invalid-argument', `a host's id has 1 to ${MAX_ID_LENGTH} characters`);
        }
        const known = engine.core.host(host.id) !== undefined;
        engine.announce(host);
        const interval = request.interval === undefined ? 0 : durationMs(request.interval);
        engine.dispatch({ type: 'hostAnnounced', host: factsOfHost(host, interval) });
        if (!known) logger.info('host announced', { hostId: host.id, ip: host.ip, port: host.port, type: host.type });
        return {};
      }),
    deleteHost: ({ hostId }) =>
      counted(metrics.leaveHost, admit, () => {
        engine.dispatch({ type: 'hostDeleted', hostId });
        return {};
      }),
    listHosts: ({ type }) =>
      counted(metrics.listHosts, admit, () => {
        const hosts = [...engine.core.hosts()].flatMap(({ id }) => engine.host(id) ?? []);
        return { hosts: type === undefined ? hosts : hosts.filter((host) => host.type === type) };
      }),
    statPeer: ({ taskId, peerId }) =>
      counted(metrics.statPeer, admit, () => {
        const peer = engine.core.peer(taskId, peerId);
        if (peer === undefined) throw new PantalaError('not-found', `peer ${peerId} not found`);
        return peerMessage(peer, engine.card(peer.host.id), taskMessage(peer.task));
      }),
    deletePeer: ({ hostId, taskId, peerId }) =>
      counted(metrics.leavePeer, admit, () => {
        engine.dispatch({ type: 'peerDeleted', hostId, taskId, peerId });
        return {};
      }),
    statTask: ({ taskId }) =>
      counted(metrics.statTask, admit, () => {
        const task = engine.core.task(taskId);
        if (task === undefined) throw new PantalaError('not-found', `task ${taskId} not found`);
        return taskMessage(task);
      }),
    deleteTask: ({ hostId, taskId }) =>
      counted(metrics.leaveTask, admit, () => {
        if (engine.core.host(hostId) === undefined) throw new PantalaError('not-found', `host ${hostId} not found`);
        engine.dispatch({ type: 'taskDeleted', hostId, taskId });
        return {};
      }),
  });
}

/** pantala.v1.Scheduler. */
export function pantalaService(engine: Engine, admit: Admit, logger: Logger): ServedService {
  return serve(pantalaV1.Scheduler, {
    converse: (requests) => {
      admit();
      return new Conversation(engine, logger).serve(requests);
    },
  });
}

async function counted<T>(metric: CallMetrics, admit: Admit, answer: () => T): Promise<T> {
  metric.count();
  try {
    admit();
    return answer();
  } catch (error) {
    metric.fail();
    throw error;
  }
}
