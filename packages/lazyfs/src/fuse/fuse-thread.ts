import { readSync } from 'node:fs';
import { constants } from 'node:os';
import { readInto, writeFrom } from '@pantala/linux';
import { PumpThread } from '../pending/pump-thread.ts';
import type { TakenRequest } from './driver.ts';
import {
  type FuseRequest,
  keyOf,
  MAX_READ,
  OPCODES,
  OUT_HEADER,
  parseRequest,
  readRange,
  UNANSWERED,
  writeHeader,
} from './protocol.ts';

/** Requests taken before the thread looks whether it is to end. */
const MAX_BATCH = 16;

const thread = new PumpThread<TakenRequest>({ needsFiles: true });
const { table, intake, source: device } = thread;
const answer = Buffer.allocUnsafeSlow(OUT_HEADER + MAX_READ);
const header = new DataView(answer.buffer, 0, OUT_HEADER);

/** Takes what waits in the kernel; false when there was no room for it. */
function take(): boolean {
  for (let taken = 0; taken < MAX_BATCH; taken++) {
    if (table.roomFor(thread.threads) === 0) return false;
    const length = readInto(device, intake);
    // Nothing more; or a request that was taken back.
    if (length === -constants.errno.EAGAIN) return true;
    if (length === -constants.errno.EINTR || length === -constants.errno.ENOENT) continue;
    if (length <= 0) throw new Error(`reading /dev/fuse failed: ${length}`);
    const bytes = intake.subarray(0, length);
    const request = parseRequest(bytes);
    if (request !== undefined && !UNANSWERED.has(request.opcode) && !isAnswered(request)) {
      thread.report([{ slot: table.add(bytes), bytes: bytes.slice() }]);
    }
    bytes.fill(0);
  }
  return true;
}

/** Answers a READ of what is there; whatever else there is the main thread does. */
function isAnswered(request: FuseRequest): boolean {
  if (request.opcode !== OPCODES.read) return false;
  const range = readRange(request);
  if (range === undefined || range.count > MAX_READ) return false;
  const { offset } = range;
  const blob = thread.holder(keyOf(request.node), offset, range.count);
  if (blob === undefined) return false;
  const count = Math.max(0, Math.min(range.count, blob.size - offset));
  try {
    if (count > 0 && readSync(blob.file, answer, OUT_HEADER, count, offset) !== count) return false;
  } catch {
    return false;
  }
  writeHeader(header, request.unique, 0, count);
  const written = writeFrom(device, answer.subarray(0, OUT_HEADER + count));
  // ENOENT: nobody waits for it any more.
  if (written < 0 && written !== -constants.errno.ENOENT) return false;
  thread.hit(blob, offset, count);
  return true;
}

thread.run(take);
