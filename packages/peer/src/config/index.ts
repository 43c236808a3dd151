export * from './dynconfig.ts';
export * from './load.ts';
export * from './older.ts';
export * from './peer-config.ts';
export * from './today.ts';
