import { createClient, dfdaemonV2, pantalaV1, type Received } from '@pantala/api';
import { PantalaError } from '@pantala/base';
import { formatSize } from '@pantala/service';
import { localAddress, reaching } from '../local-peer.ts';
import { type CommonOptions, print, printJson, table } from '../output.ts';

interface TaskOptions extends CommonOptions {
  readonly endpoint: string;
}

interface StatOptions extends TaskOptions {
  readonly sha256?: boolean;
}

/** Milliseconds for an answer about the store. */
const ANSWER_DEADLINE = 30_000;
/** Milliseconds for the digest of a whole content: 100 GiB at 100 MB/s. */
const DIGEST_DEADLINE = 1_100_000;

type Stored = Received<typeof pantalaV1.StoredTaskSchema>;

export async function listTasks(options: TaskOptions): Promise<number> {
  using client = createClient(pantalaV1.LocalStore, localAddress(options.endpoint));
  const rows = [['ID', 'HELD', 'LENGTH', 'COMPLETE', 'CREATED', 'URL']];
  await reaching(options.endpoint, async () => {
    for await (const task of client.listTasks({}, { deadline: ANSWER_DEADLINE })) {
      if (options.json === true) printJson(shown(task));
      else rows.push(row(task));
    }
  });
  if (options.json !== true) print(table(rows));
  return 0;
}

export async function statTask(id: string, options: StatOptions): Promise<number> {
  using client = createClient(pantalaV1.LocalStore, localAddress(options.endpoint));
  const task = await reaching(options.endpoint, () =>
    client.statTask(
      { taskId: taskIdOf(id), computeSha256: options.sha256 ?? false },
      { deadline: options.sha256 === true ? DIGEST_DEADLINE : ANSWER_DEADLINE },
    ),
  );
  const all = {
    ...shown(task),
    held: task.held.map(({ first, count }) => ({ first, count })),
    ...(task.sha256 === '' ? {} : { sha256: task.sha256 }),
  };
  if (options.json === true) printJson(all);
  else {
    const { held, ...rest } = all;
    const lines = Object.entries(rest).map(([key, value]) => [key, value === null ? '-' : String(value)]);
    print(
      table([...lines, ['held runs of blocks', held.map(({ first, count }) => `${first}+${count}`).join(' ') || '-']]),
    );
  }
  return 0;
}

export async function removeTask(id: string, options: TaskOptions): Promise<number> {
  using client = createClient(dfdaemonV2.DfdaemonDownload, localAddress(options.endpoint));
  const taskId = taskIdOf(id);
  await reaching(options.endpoint, () => client.deleteLocalTask({ taskId }, { deadline: ANSWER_DEADLINE }));
  if (options.json === true) printJson({ id: taskId, removed: true });
  else print(`removed ${taskId}`);
  return 0;
}

function shown(task: Stored) {
  return {
    id: task.taskId,
    url: task.url,
    digest: task.digest === '' ? null : task.digest,
    contentLength: Number(task.contentLength),
    pieceLength: Number(task.pieceLength),
    heldBytes: Number(task.heldBytes),
    complete: task.complete,
    createdAt: time(task.createdAtMs),
    completedAt: time(task.completedAtMs),
  };
}

function row(task: Stored): string[] {
  return [
    task.taskId,
    formatSize(Number(task.heldBytes)),
    formatSize(Number(task.contentLength)),
    task.complete ? 'yes' : 'no',
    time(task.createdAtMs) ?? '-',
    task.url,
  ];
}

function time(milliseconds: bigint): string | null {
  return milliseconds === 0n ? null : new Date(Number(milliseconds)).toISOString();
}

function taskIdOf(text: string): string {
  const id = text.replace(/^sha256:/, '').toLowerCase();
  if (!/^[0-9a-f]{64}$/.test(id)) {
    throw new PantalaError(
      'invalid-argument',
      `"${text}" is no task id: 64 hex digits are expected, see pantala task ls`,
    );
  }
  return id;
}
