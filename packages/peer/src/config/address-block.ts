import { isIP } from 'node:net';
import type { ConfigNode, Decoder } from '@pantala/service';

/** A CIDR block such as `10.0.0.0/8`, or a single address. */
export const addressBlock: Decoder<string | undefined> = {
  decode(node: ConfigNode) {
    if (node.absent) return undefined;
    const [address = '', bits, ...rest] = (node.text ?? '').split('/');
    const longest = isIP(address) === 6 ? 128 : 32;
    const valid = isIP(address) !== 0 && rest.length === 0 && (bits === undefined || /^\d{1,3}$/.test(bits));
    if (valid && Number(bits ?? 0) <= longest) return node.text;
    node.problem(`${node.path} must be an address or a block such as 10.0.0.0/8`);
    return undefined;
  },
};
