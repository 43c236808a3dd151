import { closeSync, fstatSync } from 'node:fs';
import { constants } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { ACCESS_EVENT_LENGTH, accessEvents, answerAccess, pollReadable, readInto } from '@pantala/linux';
import type { PumpReport, PumpSettings } from '../pending/event-pump.ts';
import { MAX_PENDING, PendingTable } from '../pending/pending-table.ts';
import { encodeAccess, identityOf, type TakenAccess } from './access-record.ts';

/** Events taken at once: what comes meanwhile waits in the kernel, which forgets nothing. */
const MAX_EVENTS_PER_READ = 64;
/** Milliseconds after which the thread looks whether it is to end, were its wake-up lost. */
const LONGEST_WAIT = 1000;
/** Milliseconds to wait for room in the table. */
const FULL_WAIT = 5;

const port = parentPort;
if (port === null) throw new Error('this module runs as a worker thread only');

const { source: group, wakeUp, table: memory } = workerData as PumpSettings;
const table = new PendingTable(memory);

function report(message: PumpReport<TakenAccess>): void {
  port?.postMessage(message);
}

/** Takes what waits in the kernel; false when there was no room for it. */
function take(): boolean {
  const room = Math.min(MAX_EVENTS_PER_READ, MAX_PENDING - table.count);
  if (room === 0) return false;
  const intake = table.intake.subarray(0, room * ACCESS_EVENT_LENGTH);
  const length = readInto(group, intake);
  if (length === -constants.errno.EAGAIN || length === -constants.errno.EINTR) return true;
  if (length <= 0) throw new Error(`read(${group}) failed: ${length}`);
  const events: TakenAccess[] = [];
  let overflow = false;
  for (const event of accessEvents(intake.subarray(0, length))) {
    if (event.overflow || event.fd < 0) {
      overflow = true;
      continue;
    }
    if (event.pid === process.pid) {
      // The worker itself writes what a reader waits for.
      answerAccess(group, event.fd, 0);
      closeSync(event.fd);
      continue;
    }
    const file = identityOf(fstatSync(event.fd, { bigint: true }));
    const slot = table.add(encodeAccess(intake.subarray(event.at, event.at + ACCESS_EVENT_LENGTH), file));
    const { fd, pid, offset, count } = event;
    events.push({ slot, fd, pid, offset, count, file });
  }
  table.intake.fill(0, 0, length);
  if (events.length > 0) report({ kind: 'events', events });
  if (overflow) report({ kind: 'failed', message: 'the kernel lost events: readers may have read holes' });
  return true;
}

try {
  let full = false;
  for (;;) {
    // A table that is full has the kernel's events wait; only the order to end is listened to.
    const [woken, ready] = pollReadable(full ? [wakeUp] : [wakeUp, group], full ? FULL_WAIT : LONGEST_WAIT);
    if (woken !== 0) break;
    full = full || ready !== 0 ? !take() : false;
  }
} catch (error) {
  report({ kind: 'failed', message: error instanceof Error ? error.message : String(error) });
}
