/**
 * `node:http`, without the names that `import` gives: for these the engine reads every export of it, and some of them
 * load all of `fetch` and WebSocket. That takes as long as everything else of a small command's start, and 6 MB.
 */
export function nodeHttp(): typeof import('node:http') {
  return process.getBuiltinModule('node:http');
}
