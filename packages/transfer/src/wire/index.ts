export type * from './contract.ts';
export type { ParentPoolOptions, PieceServerOptions } from './options.ts';
export { ParentPool, type ParentPoolDeps } from './parent-pool.ts';
export { type PieceServer, type PieceServerDeps, startPieceServer } from './server.ts';
export { fetchUpstreamPiece, type UpstreamPiece, type UpstreamPieceRequest } from './upstream-piece.ts';
