import { constants } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { pollReadable, readInto } from '@pantala/linux';
import type { PumpReport, PumpSettings } from '../pending/event-pump.ts';
import { MAX_PENDING, PendingTable } from '../pending/pending-table.ts';
import type { TakenRequest } from './driver.ts';
import { parseRequest, UNANSWERED } from './protocol.ts';

/** Milliseconds after which the thread looks whether it is to end, were its wake-up lost. */
const LONGEST_WAIT = 1000;
/** Milliseconds to wait for room in the table. */
const FULL_WAIT = 5;
/** Requests handed over at once. */
const MAX_BATCH = 16;

const port = parentPort;
if (port === null) throw new Error('this module runs as a worker thread only');

const { source: device, wakeUp, table: memory } = workerData as PumpSettings;
const table = new PendingTable(memory);

function report(message: PumpReport<TakenRequest>): void {
  port?.postMessage(message);
}

/** Takes what waits in the kernel; false when there was no room for it. */
function take(): boolean {
  const taken: TakenRequest[] = [];
  while (taken.length < MAX_BATCH) {
    if (table.count >= MAX_PENDING) break;
    const length = readInto(device, table.intake);
    // Nothing more; or a request that was taken back.
    if (length === -constants.errno.EAGAIN) break;
    if (length === -constants.errno.EINTR || length === -constants.errno.ENOENT) continue;
    if (length <= 0) throw new Error(`reading /dev/fuse failed: ${length}`);
    const bytes = table.intake.subarray(0, length);
    const request = parseRequest(bytes);
    if (request !== undefined && !UNANSWERED.has(request.opcode)) {
      taken.push({ slot: table.add(bytes), bytes: bytes.slice() });
    }
    table.intake.fill(0, 0, length);
  }
  if (taken.length > 0) report({ kind: 'events', events: taken });
  return taken.length > 0 || table.count < MAX_PENDING;
}

try {
  let full = false;
  for (;;) {
    const [woken, ready] = pollReadable(full ? [wakeUp] : [wakeUp, device], full ? FULL_WAIT : LONGEST_WAIT);
    if (woken !== 0) break;
    full = full || ready !== 0 ? !take() : false;
  }
} catch (error) {
  report({ kind: 'failed', message: error instanceof Error ? error.message : String(error) });
}
