import { AbortScope, PantalaError, Semaphore } from '@pantala/base';

/**
 * Runs a step for each item, some at once. The first failure aborts the others; it is thrown when all have ended, so
 * nothing goes on behind the caller's back.
 *
 * @param limit how many run at once
 */
export async function together<Item, Result>(
  items: readonly Item[],
  limit: number,
  run: (item: Item, signal: AbortSignal, index: number) => Promise<Result>,
  signal?: AbortSignal,
): Promise<Result[]> {
  using scope = new AbortScope([signal]);
  const permits = new Semaphore(limit);
  let failure: PantalaError | undefined;
  const results = await Promise.allSettled(
    items.map(async (item, index) => {
      try {
        using _permit = await permits.acquire(scope.signal);
        return await run(item, scope.signal, index);
      } catch (thrown) {
        failure ??= PantalaError.from(thrown);
        scope.abort(failure);
        throw failure;
      }
    }),
  );
  if (failure !== undefined) throw failure;
  return results.map((result) => (result as PromiseFulfilledResult<Result>).value);
}
