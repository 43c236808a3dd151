export * from './registry-host.ts';
