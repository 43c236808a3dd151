/** What was looked at, how it stands, and what to do. */
export interface Check {
  readonly name: string;
  /** `bad` keeps something from working, `note` makes it slower or is worth knowing. */
  readonly state: 'good' | 'note' | 'bad';
  readonly found: string;
  readonly advice?: string;
}

export function good(name: string, found: string): Check {
  return { name, state: 'good', found };
}

export function remark(name: string, found: string, advice: string): Check {
  return { name, state: 'note', found, advice };
}

export function bad(name: string, found: string, advice: string): Check {
  return { name, state: 'bad', found, advice };
}
