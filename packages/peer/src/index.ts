export * from './config/index.ts';
export { type Peer, type PeerDependencies, startPeer } from './peer.ts';
