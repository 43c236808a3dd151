export * from './options.ts';
export { type RunningScheduler, type SchedulerDependencies, startScheduler } from './server.ts';
