import { parentPort } from 'node:worker_threads';
import { PantalaError } from '@pantala/base';
import { type DecodeJob, type DecodeOutcome, decodeJob } from './decode-job.ts';

/** What a worker answers: one message for each job, in their order. */
export type WorkerAnswer =
  | { readonly outcome: DecodeOutcome }
  | { readonly failure: { readonly code: PantalaError['code']; readonly message: string } };

parentPort?.on('message', (job: DecodeJob) => {
  let answer: WorkerAnswer;
  try {
    answer = { outcome: decodeJob(job) };
  } catch (error) {
    const { code, message } = PantalaError.from(error);
    answer = { failure: { code, message } };
  }
  parentPort?.postMessage(answer);
});
