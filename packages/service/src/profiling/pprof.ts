import type { HeapProfiler, Profiler, Runtime } from 'node:inspector';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { Line, Location, Function as PprofFunction, Profile, Sample, StringTable, ValueType } from 'pprof-format';

const compress = promisify(gzip);

/** Collects what pprof's format keeps once: strings, functions, locations (profile.proto of github.com/google/pprof). */
class ProfileTables {
  readonly strings = new StringTable();
  readonly functions: PprofFunction[] = [];
  readonly locations: Location[] = [];
  readonly #functionIds = new Map<string, number>();
  readonly #locationIds = new Map<string, number>();

  /** The location of a frame, by number from 1. */
  location(frame: Runtime.CallFrame): number {
    // V8 counts lines from 0 and gives the line where the function begins.
    const line = frame.lineNumber + 1;
    const name = frame.functionName === '' ? '(anonymous)' : frame.functionName;
    const file = frame.url.startsWith('file://') ? fileURLToPath(frame.url) : frame.url;
    const key = `${name}\n${file}\n${line}`;
    const known = this.#locationIds.get(key);
    if (known !== undefined) return known;
    const id = this.locations.length + 1;
    this.locations.push(
      new Location({ id, line: [new Line({ functionId: this.#function(key, name, file, line), line })] }),
    );
    this.#locationIds.set(key, id);
    return id;
  }

  valueType(type: string, unit: string): ValueType {
    return new ValueType({ type: this.strings.dedup(type), unit: this.strings.dedup(unit) });
  }

  #function(key: string, name: string, file: string, startLine: number): number {
    const known = this.#functionIds.get(key);
    if (known !== undefined) return known;
    const id = this.functions.length + 1;
    const nameIndex = this.strings.dedup(name);
    this.functions.push(
      new PprofFunction({ id, name: nameIndex, systemName: nameIndex, filename: this.strings.dedup(file), startLine }),
    );
    this.#functionIds.set(key, id);
    return id;
  }
}

/** A CPU profile of V8 in pprof's format, compressed. Values: samples, and nanoseconds by the measured distances. */
export async function encodeCpuProfile(profile: Profiler.Profile): Promise<Buffer> {
  const tables = new ProfileTables();
  const stacks = new Map<number, number[]>();
  const parents = new Map<number, Profiler.ProfileNode>();
  for (const node of profile.nodes) for (const child of node.children ?? []) parents.set(child, node);
  for (const node of profile.nodes) {
    // Time in which nothing ran is no CPU time.
    if (node.callFrame.functionName === '(idle)') continue;
    const stack: number[] = [];
    for (let at: Profiler.ProfileNode | undefined = node; at !== undefined; at = parents.get(at.id)) {
      if (at.callFrame.functionName !== '(root)') stack.push(tables.location(at.callFrame));
    }
    stacks.set(node.id, stack);
  }
  const counts = new Map<number, { samples: number; microseconds: number }>();
  for (const [index, id] of (profile.samples ?? []).entries()) {
    if (!stacks.has(id)) continue;
    const count = counts.getOrInsertComputed(id, () => ({ samples: 0, microseconds: 0 }));
    count.samples++;
    count.microseconds += Math.max(0, profile.timeDeltas?.[index] ?? 0);
  }
  const samples = [...counts].map(
    ([id, count]) =>
      new Sample({ locationId: stacks.get(id) ?? [], value: [count.samples, Math.round(count.microseconds * 1000)] }),
  );
  const duration = Math.max(0, profile.endTime - profile.startTime);
  return encode(tables, {
    sampleType: [tables.valueType('samples', 'count'), tables.valueType('cpu', 'nanoseconds')],
    sample: samples,
    periodType: tables.valueType('cpu', 'nanoseconds'),
    period: counts.size === 0 ? 0 : Math.round((duration * 1000) / Math.max(1, profile.samples?.length ?? 1)),
    durationNanos: Math.round(duration * 1000),
  });
}

/** Live sampled allocations of V8 in pprof's format, compressed. Values: bytes. */
export async function encodeHeapProfile(profile: HeapProfiler.SamplingHeapProfile, interval: number): Promise<Buffer> {
  const tables = new ProfileTables();
  const samples: Sample[] = [];
  const visit = (node: HeapProfiler.SamplingHeapProfileNode, stack: readonly number[]): void => {
    const here = node.callFrame.functionName === '(root)' ? stack : [tables.location(node.callFrame), ...stack];
    if (node.selfSize > 0) samples.push(new Sample({ locationId: [...here], value: [node.selfSize] }));
    for (const child of node.children) visit(child, here);
  };
  visit(profile.head, []);
  return encode(tables, {
    sampleType: [tables.valueType('inuse_space', 'bytes')],
    sample: samples,
    periodType: tables.valueType('space', 'bytes'),
    period: interval,
    durationNanos: 0,
  });
}

interface ProfileBody {
  readonly sampleType: ValueType[];
  readonly sample: Sample[];
  readonly periodType: ValueType;
  readonly period: number;
  readonly durationNanos: number;
}

async function encode(tables: ProfileTables, body: ProfileBody): Promise<Buffer> {
  const profile = new Profile({
    ...body,
    location: tables.locations,
    function: tables.functions,
    stringTable: tables.strings,
    timeNanos: BigInt(Date.now()) * 1_000_000n,
  });
  return compress(profile.encode());
}
