import { describe, expect, test } from 'vitest';
import { Host } from '../../src/host.ts';
import { PEER_STEPS, Peer, type PeerState, type PeerStep } from '../../src/peer.ts';
import { Task } from '../../src/task.ts';

const STATES: PeerState[] = [
  'Pending',
  'ReceivedEmpty',
  'ReceivedNormal',
  'Running',
  'BackToSource',
  'Succeeded',
  'Failed',
  'Leave',
];

/** Upstream's machine, written down a second time as rows: from each state what each step leads to; `-`: nowhere. */
const TABLE: Record<PeerStep, readonly (PeerState | '-')[]> = {
  registerEmpty: ['ReceivedEmpty', '-', '-', '-', '-', '-', '-', '-'],
  registerNormal: ['ReceivedNormal', '-', '-', '-', '-', '-', '-', '-'],
  download: ['-', 'Running', 'Running', 'Running', '-', '-', '-', '-'],
  downloadBackToSource: ['-', 'BackToSource', 'BackToSource', 'BackToSource', 'BackToSource', '-', '-', '-'],
  succeed: ['-', 'Succeeded', 'Succeeded', 'Succeeded', 'Succeeded', '-', '-', '-'],
  fail: ['Failed', 'Failed', 'Failed', 'Failed', 'Failed', 'Failed', '-', '-'],
  leave: ['Leave', 'Leave', 'Leave', 'Leave', 'Leave', 'Leave', 'Leave', '-'],
};

function peerIn(state: PeerState): Peer {
  const host = new Host(
    { id: 'h', seed: false, idc: '', location: '', disableShared: false, announceIntervalMs: 0 },
    0,
  );
  const peer = new Peer('p', new Task('t', 0), host, 0);
  peer.state = state;
  return peer;
}

describe('a peer’s states', () => {
  test('every step from every state leads where upstream’s machine leads', () => {
    const steps = Object.keys(PEER_STEPS) as PeerStep[];
    expect(steps.sort()).toEqual((Object.keys(TABLE) as PeerStep[]).sort());
    for (const step of steps) {
      for (const [place, state] of STATES.entries()) {
        const peer = peerIn(state);
        const expected = TABLE[step][place];
        expect(peer.step(step), `${step} from ${state}`).toBe(expected !== '-');
        expect(peer.state).toBe(expected === '-' ? state : expected);
      }
    }
  });

  test('a piece that takes more than twenty times the mean is a sign of trouble', () => {
    const peer = peerIn('Running');
    for (const cost of [10, 12, 11]) peer.recordCost(cost);
    expect(peer.sluggish).toBe(false);
    peer.recordCost(400);
    expect(peer.sluggish).toBe(true);
    peer.recordCost(10);
    expect(peer.sluggish).toBe(false);
  });
});
