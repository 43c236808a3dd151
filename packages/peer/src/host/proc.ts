import { readFileSync } from 'node:fs';

/** Reading of the kernel's text files (proc(5), cgroups(7)). A file that is not there reads as undefined. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** The number of a file with one; undefined for `max`. */
export function readNumber(path: string): number | undefined {
  const value = Number(readText(path)?.trim() || Number.NaN);
  return Number.isFinite(value) ? value : undefined;
}

/** Seconds since boot that all CPUs together spent in each state; order of proc_stat(5). */
export function cpuTimes(stat: string): number[] {
  const line = /^cpu +(.*)$/m.exec(stat)?.[1] ?? '';
  return line.split(' ').map((ticks) => Number(ticks) / TICKS_PER_SECOND);
}

/** USER_HZ, which is 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** Bytes by name, of meminfo(5). */
export function memoryInfo(text: string): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const [, name, kibibytes] of text.matchAll(/^(\w+):\s+(\d+) kB$/gm)) {
    sizes.set(name as string, Number(kibibytes) * 1024);
  }
  return sizes;
}

/** Bytes received and sent by all interfaces but loopback (proc_net(5), dev). */
export function networkBytes(text: string): { readonly received: number; readonly sent: number } {
  let received = 0;
  let sent = 0;
  for (const [, name, counters] of text.matchAll(/^\s*([^\s:]+):\s*(.*)$/gm)) {
    const columns = (counters as string).split(/\s+/).map(Number);
    if (name === 'lo' || columns.length < 9) continue;
    received += columns[0] ?? 0;
    sent += columns[8] ?? 0;
  }
  return { received, sent };
}

/** TCP connections that are established, by local port (proc_net_tcp(5): state 01). */
export function establishedConnections(text: string, localPort?: number): number {
  let count = 0;
  for (const [, port] of text.matchAll(/^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} 01 /gm)) {
    if (localPort === undefined || Number.parseInt(port as string, 16) === localPort) count++;
  }
  return count;
}
