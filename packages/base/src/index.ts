export * from './bitmap.ts';
export * from './digest.ts';
export * from './errors.ts';
export * from './geometry.ts';
export * from './logger.ts';
export * from './metrics.ts';
export * from './ranges.ts';
