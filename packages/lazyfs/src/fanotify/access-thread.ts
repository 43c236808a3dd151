import { closeSync, fstatSync } from 'node:fs';
import { constants } from 'node:os';
import { ACCESS_EVENT_LENGTH, type AccessEvent, accessEvents, answerAccess, readInto } from '@pantala/linux';
import { PumpThread } from '../pending/pump-thread.ts';
import { encodeAccess, type FileIdentity, identityKey, identityOf, type TakenAccess } from './access-record.ts';

/** Events taken at once: what comes meanwhile waits in the kernel, which forgets nothing. */
const MAX_EVENTS_PER_READ = 64;
/** Where struct fanotify_event_metadata has the descriptor. */
const DESCRIPTOR_AT = 16;

const thread = new PumpThread<TakenAccess>({ needsFiles: false });
const { table, intake, source: group } = thread;

/** Takes what waits in the kernel; false when there was no room for it. */
function take(): boolean {
  const room = Math.min(MAX_EVENTS_PER_READ, table.roomFor(thread.threads));
  if (room === 0) return false;
  const length = readInto(group, intake.subarray(0, room * ACCESS_EVENT_LENGTH));
  if (length === -constants.errno.EAGAIN || length === -constants.errno.EINTR) return true;
  if (length <= 0) throw new Error(`read(${group}) failed: ${length}`);
  const events: TakenAccess[] = [];
  let overflow = false;
  for (const event of accessEvents(intake.subarray(0, length))) {
    if (event.overflow || event.fd < 0) {
      overflow = true;
      continue;
    }
    // The worker itself writes what a reader waits for.
    const isOwn = event.pid === process.pid;
    const file = isOwn ? undefined : identityOf(fstatSync(event.fd, { bigint: true }));
    if (isOwn || (file !== undefined && isHit(event, file))) {
      answerAccess(group, event.fd, 0);
      forget(event.at);
      closeSync(event.fd);
      continue;
    }
    const slot = table.add(encodeAccess(intake.subarray(event.at, event.at + ACCESS_EVENT_LENGTH), file));
    const { fd, pid, offset, count } = event;
    events.push({ slot, fd, pid, offset, count, file });
    forget(event.at);
  }
  intake.fill(0, 0, length);
  if (events.length > 0) thread.report(events);
  if (overflow) thread.fail('the kernel lost events: readers may have read holes');
  return true;
}

/** Gives an event in the intake no descriptor: the next worker passes it over. */
function forget(at: number): void {
  intake.fill(0xff, at + DESCRIPTOR_AT, at + DESCRIPTOR_AT + 4);
}

/** Whether everything is there that the reader wants. */
function isHit({ offset, count }: AccessEvent, file: FileIdentity): boolean {
  const blob = thread.holder(identityKey(file), offset, count);
  if (blob === undefined) return false;
  thread.hit(blob, offset, count);
  return true;
}

thread.run(take);
