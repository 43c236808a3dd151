import { styleText } from 'node:util';
import type { DoneLine, NodeTraffic } from '@pantala/testkit';

export interface NodeResult {
  readonly name: string;
  readonly seconds: number;
  readonly originBytes: number;
  readonly peerBytes: number;
  readonly localBytes: number;
}

export interface DemoResult {
  readonly nodes: readonly NodeResult[];
  readonly imageBytes: number;
  /** Bytes that the registry handed out, by its own count, divided by the image's. */
  readonly originCopies: number;
}

/** More than this is not "once": manifests are asked for by each node. */
export const COPIES_LIMIT = 1.02;

const COLUMNS = ['node', 'from origin', 'from peers', 'own store', 'time'] as const;
const WIDTHS = [8, 12, 12, 12, 8] as const;

export function progressLine(traffic: readonly { readonly name: string; readonly traffic: NodeTraffic }[]): string {
  const parts = traffic.map(
    ({ name, traffic: { origin, peers } }) => `${name} ${megabytes(origin)} origin + ${megabytes(peers)} peers`,
  );
  return `  ${parts.join(' | ')}`;
}

export function table(result: DemoResult, seed: NodeResult): string {
  const rows = [...result.nodes, seed].map((node) => [
    node.name,
    megabytes(node.originBytes),
    megabytes(node.peerBytes),
    megabytes(node.localBytes),
    node.seconds > 0 ? `${node.seconds.toFixed(1)} s` : '',
  ]);
  const line = (cells: readonly string[]): string =>
    cells.map((cell, at) => (at === 0 ? cell.padEnd(WIDTHS[at] ?? 0) : cell.padStart(WIDTHS[at] ?? 0))).join('  ');
  return [styleText('bold', line(COLUMNS)), ...rows.map(line)].join('\n');
}

export function verdict(result: DemoResult): string {
  const copies = result.originCopies.toFixed(3);
  const text = `The registry handed out ${copies} copies of ${megabytes(result.imageBytes)} for ${result.nodes.length} nodes.`;
  return result.originCopies <= COPIES_LIMIT
    ? styleText('green', text)
    : styleText('red', `${text} At most ${COPIES_LIMIT} are allowed.`);
}

export function doneLine(node: string, line: DoneLine): string {
  return `  ${node.padEnd(6)} ${JSON.stringify(line)}`;
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
