import { createHash } from 'node:crypto';
import { parentPort } from 'node:worker_threads';
import type { HashRequest } from './blob-hash.ts';

const hash = createHash('sha256');

parentPort?.on('message', (request: HashRequest) => {
  if (request === 'copy') {
    parentPort?.postMessage(hash.copy().digest());
    return;
  }
  for (const part of request) hash.update(part);
  parentPort?.postMessage(undefined);
});
