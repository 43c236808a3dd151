export * from './core.ts';
export type * from './decisions.ts';
export type { BlockDigests, DigestNews, DigestReport, NumberedDigest } from './digest-book.ts';
export type * from './events.ts';
export type { Host, HostFacts } from './host.ts';
export * from './options.ts';
export type { Peer, PeerState } from './peer.ts';
export * from './simulator/simulate.ts';
export type { Task, TaskFacts, TaskState, WantedRange } from './task.ts';
