export * from './plan.ts';
export * from './prefetch.ts';
