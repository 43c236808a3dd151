/** FNV-1a of a string's UTF-16 code units, mixed: for ties and spread, not against attackers. */
export function hash32(text: string, seed = 0): number {
  let value = 0x811c9dc5 ^ seed;
  for (let index = 0; index < text.length; index++) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  }
  return mix32(value);
}

/** A number's bits spread over all 32 (the finalizer of MurmurHash3). */
export function mix32(number: number): number {
  let value = number | 0;
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}
