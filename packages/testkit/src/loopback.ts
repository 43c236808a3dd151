import type { Place } from './program.ts';

let given = 0;

/**
 * A loopback address that no other run uses: all of 127.0.0.0/8 is there, so each program gets its usual ports on an
 * address of its own, without root.
 */
export function loopbackPlace(): Place {
  given++;
  const { pid } = process;
  const address = `127.${64 + ((pid >> 8) & 127)}.${pid & 255}.${given % 255}`;
  return { address, localhost: address, wrap: (command, args) => [command, args] };
}
