import type { Hash } from 'node:crypto';
import { readSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { contentHasher } from '@pantala/base';
import type { DigestCommand, DigestReport } from './messages.ts';

/** Bytes read and hashed at once. */
const STEP_LENGTH = 1024 * 1024;

interface Job {
  readonly fd: number;
  readonly hasher: Hash;
  readonly length: number;
  position: number;
  end: number;
}

const port = parentPort;
if (port === null) throw new Error('this module runs as a worker thread only');

const jobs = new Map<number, Job>();
const buffer = Buffer.allocUnsafeSlow(STEP_LENGTH);
let running = false;

port.on('message', (command: DigestCommand) => {
  if (command.kind === 'begin') {
    const { fd, algorithm, length } = command;
    jobs.set(command.id, { fd, hasher: contentHasher(algorithm), length, position: 0, end: 0 });
  } else if (command.kind === 'extend') {
    const job = jobs.get(command.id);
    if (job !== undefined) job.end = command.end;
  } else if (jobs.delete(command.id)) {
    report({ kind: 'dropped', id: command.id });
  }
  if (!running) {
    running = true;
    setImmediate(step);
  }
});

/** One step of each job, so that none waits for another one's end. */
function step(): void {
  let more = false;
  for (const [id, job] of jobs) {
    try {
      if (job.position < job.end) {
        const length = readSync(job.fd, buffer, 0, Math.min(STEP_LENGTH, job.end - job.position), job.position);
        if (length === 0) throw new Error(`the file ends at ${job.position} of ${job.length} bytes`);
        job.hasher.update(buffer.subarray(0, length));
        job.position += length;
        more ||= job.position < job.end;
      }
      if (job.position === job.length) {
        jobs.delete(id);
        report({ kind: 'digest', id, hex: job.hasher.digest('hex') });
      }
    } catch (error) {
      jobs.delete(id);
      report({ kind: 'failed', id, message: error instanceof Error ? error.message : String(error) });
    }
  }
  running = more;
  if (more) setImmediate(step);
}

function report(message: DigestReport): void {
  port?.postMessage(message);
}
