import { PantalaError } from '@pantala/base';
import { compilePattern, compileReplacement } from './pattern.ts';

export interface RuleOptions {
  /** Found anywhere in the URL without query and fragment. */
  readonly regex: string;
  /** Ask the origin over https even when the client said http. */
  readonly useTls?: boolean;
  /** Another authority (`host[:port]`) for the URL; with a `/` in it a replacement for what the pattern matched. */
  readonly redirect?: string;
  /** Matching requests go straight to the origin. */
  readonly direct?: boolean;
  /** Query parameters that are no part of the task's id. */
  readonly filteredQueryParams?: readonly string[];
}

export interface Rule {
  readonly pattern: RegExp;
  readonly useTls: boolean;
  readonly authority: string | undefined;
  readonly replacement: string | undefined;
  readonly direct: boolean;
  readonly filteredQueryParams: readonly string[] | undefined;
}

/** @throws `invalid-argument` naming `where` */
export function compileRule(given: RuleOptions, where: string): Rule {
  const redirect = given.redirect?.trim() ?? '';
  const replaces = redirect.includes('/');
  if (redirect !== '' && !replaces && URL.parse(`http://${redirect}/`)?.pathname !== '/') {
    throw new PantalaError('invalid-argument', `${where}.redirect: "${redirect}" is no host[:port]`);
  }
  return {
    pattern: compilePattern(given.regex, `${where}.regex`),
    useTls: given.useTls ?? false,
    authority: redirect === '' || replaces ? undefined : redirect,
    replacement: replaces ? compileReplacement(redirect) : undefined,
    direct: given.direct ?? false,
    filteredQueryParams: given.filteredQueryParams,
  };
}

/** The first rule whose pattern is found in `url` without query and fragment. */
export function matchRule(rules: readonly Rule[], url: URL): Rule | undefined {
  if (rules.length === 0) return undefined;
  const text = withoutQuery(url);
  return rules.find((rule) => rule.pattern.test(text));
}

/**
 * The URL that a rule makes of `url`; the query stays.
 *
 * @throws `invalid-argument` when a replacement makes no http(s) URL
 */
export function applyRule(rule: Rule, url: URL): URL {
  if (!rule.useTls && rule.authority === undefined && rule.replacement === undefined) return url;
  const scheme = rule.useTls ? 'https:' : url.protocol;
  const path = `${url.pathname}${url.search}`;
  if (rule.replacement === undefined) return new URL(`${scheme}//${rule.authority ?? url.host}${path}`);
  const secured = withoutQuery(url).replace(/^https?:/, scheme);
  const replaced = URL.parse(secured.replace(rule.pattern, rule.replacement) + url.search);
  if (replaced === null || !/^https?:$/.test(replaced.protocol)) {
    throw new PantalaError('invalid-argument', `the redirect of rule ${rule.pattern} makes no http URL of ${secured}`);
  }
  return replaced;
}

function withoutQuery(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}
