import type { Command } from 'commander';
import { type ActionWrapper, collect, endpoint, examples, whole } from './options.ts';

/** `pantala get`: a file through the peer. */
export function getCommands(program: Command, action: ActionWrapper): void {
  program
    .command('get')
    .description('Downloads a file through the peer on this machine.')
    .argument('<url>', 'http or https')
    .requiredOption('-O, --output <path>', 'where the file is put')
    .option(...endpoint)
    .option('--digest <digest>', 'sha256:<hex> or sha512:<hex> that the content must have')
    .option('-H, --header <header>', 'header for the origin, as "Name: value"; may be repeated', collect, [])
    .option('--tag <tag>', 'keeps the content apart from the same URL with another tag')
    .option('--application <name>', 'keeps the content apart like a tag')
    .option('-p, --priority <level>', 'from 0 (most important) to 6', whole, 6)
    .option(
      '--filtered-query-param <name>',
      'query parameter that does not tell contents apart; may be repeated',
      collect,
      [],
    )
    .option('--piece-length <size>', 'as 4MiB; a power of two is best')
    .option('--content-for-calculating-task-id <text>', 'names the content instead of its URL')
    .option('--disable-back-to-source', 'never ask the origin from here')
    .option('--transfer-from-dfdaemon', 'receive the bytes instead of having the peer write the file')
    .option('--force-hard-link', "fail unless the file can be a hard link into the peer's store")
    .option('--overwrite', 'replace a file that is there')
    .option('--timeout <duration>', 'as 2h or 30s', '2h')
    .option('--no-progress', 'no progress bar')
    .option('--json', 'print one line with bytes, seconds and where the bytes came from')
    .addHelpText(
      'after',
      examples(
        'pantala get https://example.com/model.bin -O /data/model.bin',
        'pantala get https://example.com/a.iso -O a.iso --digest sha256:… --json',
        'pantala get -e /tmp/swarm/run/daemon.sock http://127.0.0.1:8080/f -O f --disable-back-to-source',
      ),
    )
    .action(action('get', async (url, options) => (await import('../commands/get.ts')).get(url, options)));
}
