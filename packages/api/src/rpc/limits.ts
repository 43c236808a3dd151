/**
 * Bytes of one received message unless a server or client says otherwise. Lists (hosts, held tasks, local tasks of a
 * full node) are the largest ordinary messages; four times gRPC's usual 4 MiB holds 100,000 entries of a list.
 */
export const MAX_MESSAGE_LENGTH = 16 * 1024 * 1024;

/** Bytes that an HTTP/2 stream may have under way; large enough that piece contents on the local socket flow. */
export const FLOW_CONTROL_WINDOW = 2 * 1024 * 1024;

/** Streams that one connection may have open at once: more than any peer needs, and a bound for a hostile one. */
export const MAX_CONCURRENT_STREAMS = 10_000;

/** Messages that a MessageQueue holds for a receiver that does not read; then something is wrong with it. */
export const MAX_QUEUED_MESSAGES = 65_536;

/** Milliseconds that an orderly stop waits for running calls. */
export const STOP_TIMEOUT = 5_000;

/** Milliseconds between two HTTP/2 pings, and how long an answer may take: upstream's clients use the same. */
export const KEEPALIVE_INTERVAL = 300_000;
export const KEEPALIVE_TIMEOUT = 20_000;

/**
 * Milliseconds between two attempts to connect, at first and at most. Calls fail at once in the pause, so it is short:
 * callers that try again have pauses of their own.
 */
export const FIRST_RECONNECT_PAUSE = 100;
export const MAX_RECONNECT_PAUSE = 1_000;

/** Bytes of a unix socket's path, without the final NUL (unix(7): sun_path has 108). */
export const MAX_SOCKET_PATH_LENGTH = 107;
