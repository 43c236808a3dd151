import { PantalaError } from '@pantala/base';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ConfigReport,
  count,
  dictionary,
  duration,
  flag,
  list,
  MAX_CONFIG_BYTES,
  nearest,
  parseConfig,
  parseDuration,
  parseSize,
  port,
  readConfig,
  section,
  size,
  text,
} from '../../src/index.ts';

const schema = section(
  {
    verbose: flag(false),
    proxy: section({ port: port(4001), rules: list(section({ regex: text(), useTLS: flag(false) })) }),
    timeout: duration(30_000),
    limit: size(10),
    name: text(),
    headers: dictionary(text()),
    retries: count(3),
  },
  { unused: { tracing: 'no traces are exported' } },
);

function decode(yaml: string) {
  const report = new ConfigReport();
  const config = schema.decode(parseConfig(yaml, 'peer.yaml', report));
  return { config, report };
}

describe('configuration files', () => {
  it('gives defaults for what is missing', () => {
    const { config, report } = decode('');
    expect(config).toEqual({
      verbose: false,
      proxy: { port: 4001, rules: [] },
      timeout: 30_000,
      limit: 10,
      name: undefined,
      headers: {},
      retries: 3,
    });
    expect(report).toMatchObject({ problems: [], warnings: [] });
  });

  it('names file, line, column and the nearest key for an unknown one', () => {
    const { report } = decode('verbose: true\nproxy:\n  prot: 4001\n  rules:\n    - regx: blobs\n');
    expect(report.problems).toEqual([
      'peer.yaml:3:3: unknown key "proxy.prot"; the nearest known key is "port"',
      'peer.yaml:5:7: unknown key "proxy.rules[0].regx"; the nearest known key is "regex"',
    ]);
    expect(() => report.throwIfBad()).toThrow(PantalaError);
  });

  it('warns once of a key without effect, and looks at nothing below it', () => {
    const { report } = decode('tracing:\n  endpoint: x\n  whatever: [1, 2]\n');
    expect(report.problems).toEqual([]);
    expect(report.warnings).toEqual(['peer.yaml:1:1: tracing has no effect: no traces are exported']);
  });

  it('shows every wrong value at its place', () => {
    const { report } = decode('verbose: yes please\nproxy: {port: 70000}\ntimeout: 30\nlimit: many\nheaders: [a]\n');
    expect(report.problems).toEqual([
      'peer.yaml:1:10: verbose must be true or false, not "yes please"',
      'peer.yaml:2:15: proxy.port must be a port from 0 to 65535, not "70000"',
      'peer.yaml:3:10: timeout must be a duration such as 30s or 1h30m, not "30"',
      'peer.yaml:4:8: limit must be a size such as 64MiB or 10GB, not "many"',
      'peer.yaml:5:10: headers must be a mapping',
    ]);
  });

  it('says where the YAML is broken', () => {
    expect(() => decode('proxy:\n  port: [1\nname: x\n')).toThrow(/^peer\.yaml:\d+:\d+: /);
    expect(() => decode('name: a\nname: b\n')).toThrow(/peer\.yaml:2:1: /);
  });

  it('refuses aliases of aliases that multiply, deep nesting and long files', () => {
    const levels = Array.from({ length: 30 }, (_, n) => `  k${n + 1}: &a${n + 1} [*a${n}, *a${n}, *a${n}, *a${n}]`);
    const bomb = section({ headers: dictionary(nested(40)) });
    const yaml = `headers:\n  k0: &a0 [x]\n${levels.join('\n')}\n`;
    expect(() => bomb.decode(parseConfig(yaml, 'bomb.yaml', new ConfigReport()))).toThrow(/more than 50000 values/);
    const deep = section({ name: nested(100) });
    const brackets = `name: ${'['.repeat(100)}${']'.repeat(100)}`;
    expect(() => deep.decode(parseConfig(brackets, 'deep.yaml', new ConfigReport()))).toThrow(/32 levels/);
    expect(() => parseConfig('['.repeat(500_000), 'deep.yaml', new ConfigReport())).toThrow(PantalaError);
    expect(() => parseConfig('a'.repeat(MAX_CONFIG_BYTES + 1), 'long.yaml', new ConfigReport())).toThrow(/longer than/);
  });

  it('answers any text with options or a PantalaError', () => {
    const line = fc.constantFrom(
      'verbose: ',
      'proxy:',
      '  port: ',
      '  rules: ',
      '- ',
      '{',
      '}',
      '[',
      ']',
      '&a ',
      '*a',
      '!!x ',
      '|',
      '"',
      "'",
      '? ',
      '\t',
      '<<: ',
      '9',
    );
    fc.assert(
      fc.property(
        fc.array(fc.oneof(line, fc.string({ maxLength: 8 }), fc.constant('\n')), { maxLength: 40 }),
        (parts) => {
          try {
            decode(parts.join(''));
          } catch (error) {
            if (!(error instanceof PantalaError)) throw error;
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('says which file is not there', () => {
    expect(() => readConfig('/nonexistent/peer.yaml', new ConfigReport())).toThrow(
      /cannot read the configuration file \/nonexistent\/peer\.yaml/,
    );
  });
});

function nested(levels: number): ReturnType<typeof list> {
  return levels === 0 ? list(text()) : list({ decode: (node) => nested(levels - 1).decode(node) });
}

describe('units', () => {
  it.each([
    ['0', 0],
    ['500ms', 500],
    ['1h30m', 5_400_000],
    ['10m0s', 600_000],
    ['2days 3h', 183_600_000],
    ['1.5s', 1500],
    ['720h', 2_592_000_000],
    ['10', undefined],
    ['s', undefined],
    ['1x', undefined],
    ['-1s', undefined],
    ['1constructor', undefined],
  ])('reads the duration %s', (text, expected) => expect(parseDuration(text)).toBe(expected));

  it.each([
    ['4096', 4096],
    ['64MiB', 67_108_864],
    ['1024Mi', 1_073_741_824],
    ['10GB', 10_000_000_000],
    ['1MB', 1_000_000],
    ['1.5 KiB', 1536],
    ['50G', 50_000_000_000],
    ['9999999999PiB', undefined],
    ['i', undefined],
    ['5iB', undefined],
    ['-1', undefined],
  ])('reads the size %s', (text, expected) => expect(parseSize(text)).toBe(expected));
});

describe('nearest', () => {
  it('finds what was meant, and nothing where nothing is near', () => {
    expect(nearest('registryMirrors', ['registryMirror', 'rules'])).toBe('registryMirror');
    expect(nearest('PREFETCH', ['prefetch'])).toBe('prefetch');
    expect(nearest('zzzzzz', ['prefetch', 'rules'])).toBeUndefined();
    expect(nearest('x'.repeat(100_000), ['prefetch'])).toBeUndefined();
  });
});
