export * from './admin-server.ts';
export * from './side-port.ts';
