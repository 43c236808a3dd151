import { createHash } from 'node:crypto';
import { parentPort } from 'node:worker_threads';
import type { HashRequest } from './blob-hash.ts';

let hash = createHash('sha256');

parentPort?.on('message', (request: HashRequest) => {
  if (request === 'copy') {
    parentPort?.postMessage(hash.copy().digest());
    return;
  }
  if (request === 'restart') {
    hash = createHash('sha256');
    return;
  }
  for (const part of request) hash.update(part);
  parentPort?.postMessage(undefined);
});
