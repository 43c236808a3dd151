import { parentPort } from 'node:worker_threads';
import { type DecodeJob, decodeIntoFile } from './decode-job.ts';

parentPort?.on('message', (job: DecodeJob) => parentPort?.postMessage(decodeIntoFile(job)));
