import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { flushCompileCache } from 'node:module';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { enterGroups } from './enter-groups.ts';
import { type Held, handDown, inherited } from './held.ts';
import {
  GUARDIAN_VARIABLE,
  type GuardianMessage,
  type GuardianSettings,
  TAKE_OVER,
  type WorkerCommand,
  type WorkerMessage,
} from './messages.ts';
import { spareFromOom } from './oom-score.ts';

/**
 * The guardian's process. It holds descriptors, and starts a worker when there is none; it must not die, so it does
 * nothing else and imports next to nothing.
 */

/** Milliseconds before a worker that ended without having served is started again; grows up to the longest. */
const FIRST_PAUSE = 20;
const LONGEST_PAUSE = 2000;
/** Milliseconds after a worker has begun to serve until a standby is started: it is busy then. */
const STANDBY_DELAY = 500;
/** Milliseconds for a first worker, who started the guardian, to say that it is there. */
const FIRST_WORKER_DEADLINE = 10_000;

interface Standby {
  readonly child: ChildProcess;
  ready: boolean;
}

const settings = JSON.parse(process.env[GUARDIAN_VARIABLE] ?? '') as GuardianSettings;
const own = inheritedOrFail();

let command: WorkerCommand | undefined = settings.worker;
let worker: Socket | undefined;
/** A worker that was started, or told to take over, and has not said that it serves. */
let coming: ChildProcess | undefined;
let standby: Standby | undefined;
let pause = FIRST_PAUSE;
let timer: NodeJS.Timeout | undefined;

const notJoined = enterGroups(settings.controlGroups);
const oomScore = spareFromOom();

function inheritedOrFail(): Held {
  const held = inherited(process.env);
  if (held === undefined) throw new Error('the guardian was given nothing to hold');
  return held;
}

function start({ executable, arguments: args }: WorkerCommand, role: 'worker' | 'standby'): ChildProcess {
  const { stdio, env } = handDown(own);
  const log = openLog();
  const { [GUARDIAN_VARIABLE]: _, ...inheritedEnv } = process.env;
  const child = spawn(executable, [...args, '--role', role], {
    // A standby is told to take over by its stdin, and ends when the guardian does.
    stdio: [role === 'standby' ? 'pipe' : 'ignore', role === 'standby' ? 'pipe' : log, log, ...stdio],
    env: { ...inheritedEnv, ...env },
    detached: true,
  });
  if (log !== 'inherit') closeSync(log);
  child.on('error', () => undefined);
  child.stdin?.on('error', () => undefined);
  return child;
}

/** Anew, for it may have been put away; its own where that is not possible, as when the directory is gone. */
function openLog(): number | 'inherit' {
  try {
    return openSync(settings.log, 'a');
  } catch {
    return 'inherit';
  }
}

function startStandby(): void {
  timer = undefined;
  if (standby !== undefined || worker === undefined || command === undefined) return;
  const child = start(command, 'standby');
  const entry: Standby = { child, ready: false };
  standby = entry;
  // It prints a line once it has loaded everything.
  if (child.stdout !== null) createInterface({ input: child.stdout }).on('line', () => (entry.ready = true));
  child.once('exit', () => {
    if (standby === entry) standby = undefined;
  });
}

/** Has somebody serve, unless that is another's business. */
function replaceWorker(): void {
  clearTimeout(timer);
  timer = undefined;
  if (command === undefined) return;
  // Where the directory was removed nobody could reach it, and it would start one worker after the other.
  if (!existsSync(settings.socket)) listenAgain();
  const { child, ready } = standby ?? { child: undefined, ready: false };
  standby = undefined;
  if (child !== undefined && ready && child.exitCode === null && child.signalCode === null) {
    child.stdin?.write(`${TAKE_OVER}\n`);
    coming = child;
  } else {
    child?.kill('SIGKILL');
    coming = start(command, 'worker');
  }
  const next = coming;
  next.once('exit', () => {
    if (coming !== next || worker !== undefined) return;
    coming = undefined;
    timer = setTimeout(replaceWorker, pause);
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  });
}

function onMessage(socket: Socket, message: WorkerMessage): void {
  if (message.kind === 'worker') {
    worker = socket;
    coming = undefined;
    pause = FIRST_PAUSE;
    const answer: GuardianMessage = { kind: 'guardian', pid: process.pid, oomScore, held: own, notJoined };
    socket.write(`${JSON.stringify(answer)}\n`);
    clearTimeout(timer);
    timer = setTimeout(startStandby, STANDBY_DELAY);
  } else if (message.kind === 'replace') {
    command = message.worker;
    standby?.child.kill('SIGKILL');
    standby = undefined;
    startStandby();
  } else {
    standby?.child.kill('SIGKILL');
    // The socket stays: it may be the next guardian's by now.
    process.exit(0);
  }
}

function onConnection(socket: Socket): void {
  socket.on('error', () => undefined);
  createInterface({ input: socket }).on('line', (line) => onMessage(socket, JSON.parse(line) as WorkerMessage));
  socket.once('close', () => {
    if (worker !== socket) return;
    worker = undefined;
    replaceWorker();
  });
}

function listen(): Server {
  rmSync(settings.socket, { force: true });
  return createServer(onConnection).listen(settings.socket);
}

function listenAgain(): void {
  try {
    mkdirSync(dirname(settings.socket), { recursive: true, mode: 0o700 });
    server.close();
    server = listen();
  } catch (error) {
    process.stderr.write(`the guardian cannot listen on ${settings.socket}: ${String(error)}\n`);
  }
}

let server = listen();
// A process that is killed leaves none behind for the next one.
flushCompileCache();
timer = setTimeout(replaceWorker, FIRST_WORKER_DEADLINE);
// Whoever ends a session or a terminal does not mean the guardian.
for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined);
