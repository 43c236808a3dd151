export * from './contract.ts';
export { createDownloader, type DownloaderDependencies } from './downloader.ts';
export type { LocalHost, ServerAddress, SwarmOptionsGiven } from './options.ts';
export { newTraceId, type TaskDone, taskDone } from './task-done.ts';
