export * from './profiler.ts';
export * from './routes.ts';
