import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs, styleText } from 'node:util';
import { PantalaError } from '@pantala/base';
import { installed, machineImage, type Node, pushImage, Registry, Swarm } from '@pantala/testkit';
import {
  COPIES_LIMIT,
  type DemoResult,
  doneLine,
  megabytes,
  type NodeResult,
  progressLine,
  table,
  verdict,
} from './report.ts';
import { setStage } from './stage.ts';

const HELP = `Usage: ./demo [--json] [--nodes N]

Several nodes with containerd pull one image of this machine's own files at once through the swarm. The registry
counts what it hands out: about one copy, however many nodes there are.

  --json     the last line of stdout is the result; everything else goes to stderr
  --nodes N  how many nodes pull (3)

Exit status: 0 when the registry handed out at most ${COPIES_LIMIT} copies, 1 when more, 69 when something is missing here.
`;
const IMAGE = { bytes: 320e6, layers: 6 };
const REPOSITORY = 'machine';
const TAG = 'latest';
const PROGRESS_INTERVAL = 1000;
const MISSING_STATUS = 69;

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    nodes: { type: 'string', default: '3' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
const say = (text: string): void => void (values.json ? process.stderr : process.stdout).write(`${text}\n`);

/** An interrupt takes the ordinary way out: namespaces and mounts must not stay behind. */
const interrupt = Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]).then(() => {
  throw new PantalaError('cancelled', 'interrupted');
});
interrupt.catch(() => {});

if (values.help) {
  process.stdout.write(HELP);
} else {
  try {
    const count = Number(values.nodes);
    if (!Number.isInteger(count) || count < 1 || count > 30) {
      throw new PantalaError('invalid-argument', `--nodes ${values.nodes}: a number from 1 to 30 is wanted`);
    }
    const result = await demonstrate(count);
    if (values.json) process.stdout.write(`${JSON.stringify(result)}\n`);
    process.exitCode = result.originCopies <= COPIES_LIMIT ? 0 : 1;
  } catch (error) {
    say(styleText('red', `./demo: ${PantalaError.from(error).message}`));
    process.exitCode = MISSING_STATUS;
  }
}
process.exit();

async function demonstrate(count: number): Promise<DemoResult> {
  if (!installed('docker-registry')) {
    throw new PantalaError('failed-precondition', 'docker-registry is missing: apt-get install docker-registry');
  }
  await using stage = await setStage();
  for (const shortcoming of stage.shortcomings) say(styleText('yellow', `On this machine: ${shortcoming}.`));

  say("Building an image of this machine's own files (kept for the next run) and pushing it to docker-registry.");
  const image = await Promise.race([machineImage(IMAGE), interrupt]);
  await using registry = await Registry.start({ place: await stage.place() });
  await pushImage(image, { registry: registry.url, repository: REPOSITORY, tag: TAG });
  say(`  ${registry.host}/${REPOSITORY}:${TAG}, ${image.layers.length} layers, ${megabytes(image.bytes)}`);

  say(`Starting a scheduler, a seed and ${count} nodes, each with a peer and a containerd.`);
  const places = await Promise.all([stage.place(), stage.place()]);
  const peers = [];
  for (let number = 0; number < count; number++) peers.push(await stage.place());
  await using swarm = await Swarm.start({
    scheduler: places[0],
    seeds: [places[1]],
    peers,
    settings: { peer: { proxy: { rules: [{ regex: 'blobs/sha256.*' }] } } },
  });
  await using pullers = new AsyncDisposableStack();
  const started = [];
  for (const peer of swarm.peers) {
    started.push({ peer, puller: pullers.use(await stage.puller(peer.place, peer.proxy)) });
  }
  registry.resetCount();

  say('All nodes pull at once.');
  const finished = new AbortController();
  const progress = watch(swarm.nodes, finished.signal);
  let nodes: NodeResult[];
  try {
    const pulls = started.map(async ({ peer, puller }) => {
      const seconds = await puller.pull({ registry, repository: REPOSITORY, tag: TAG });
      say(`  ${peer.name} has the image after ${seconds.toFixed(1)} s`);
      return measure(peer, seconds);
    });
    nodes = await Promise.race([Promise.all(pulls), interrupt]);
  } finally {
    finished.abort();
    await progress;
  }
  say('What the nodes logged:');
  for (const node of swarm.nodes) for (const line of node.doneLines()) say(doneLine(node.name, line));
  const result = { nodes, imageBytes: image.bytes, originCopies: registry.bytesOut() / image.bytes };
  say(`\n${table(result, await measure(swarm.seed, 0))}\n\n${verdict(result)}`);
  return result;
}

async function measure(node: Node, seconds: number): Promise<NodeResult> {
  const { origin, peers, local } = await node.traffic();
  return { name: node.name, seconds, originBytes: origin, peerBytes: peers, localBytes: local };
}

/** Says where the bytes come from, again and again until told to stop. */
async function watch(nodes: readonly Node[], signal: AbortSignal): Promise<void> {
  let last = '';
  while (!signal.aborted) {
    try {
      await sleep(PROGRESS_INTERVAL, undefined, { signal });
    } catch {
      return;
    }
    const traffic = await Promise.all(nodes.map(async (node) => ({ name: node.name, traffic: await node.traffic() })));
    const line = progressLine(traffic);
    if (line !== last) say(line);
    last = line;
  }
}
