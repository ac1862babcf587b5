/**
 * One body for what answers at once and for what answers by promises. Over a cache an adapter does its work in the call itself and
 * makes no promise: what has to be awaited is awaited by {@link after} and {@link run}, which go on at once with what is no promise.
 */

/** What is there at once, or comes by a promise. */
export type Awaitable<T> = T | Promise<T>;

export function isPromise(value: unknown): value is Promise<any> {
  // Not `instanceof`: a promise may come from another realm, such as that of a test runner.
  return typeof (value as Promise<unknown> | undefined)?.then === "function";
}

/** Goes on with a value: at once, or when its promise is fulfilled. */
export function after<T, R>(value: Awaitable<T>, next: (value: T) => Awaitable<R>): Awaitable<R> {
  return isPromise(value) ? value.then(next) : next(value);
}

/** Goes on with an error, whether `call` throws it or its promise is rejected with it. */
export function rescued<T>(call: () => Awaitable<T>, next: (error: unknown) => Awaitable<T>): Awaitable<T> {
  let result: Awaitable<T>;
  try {
    result = call();
  } catch (error) {
    return next(error);
  }
  return isPromise(result) ? result.catch(next) : result;
}

/** All values: at once if none of them is a promise. */
export function all<T>(values: readonly Awaitable<T>[]): Awaitable<T[]> {
  return values.some(isPromise) ? Promise.all(values) : (values as T[]);
}

/** All that an iterable has: at once if it answers at once. */
export function listed<T>(values: Iterable<T> | AsyncIterable<T>): Awaitable<T[]> {
  return Symbol.asyncIterator in values ? listedLater(values) : [...values];
}

async function listedLater<T>(values: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const value of values) list.push(value);
  return list;
}

/** The steps of {@link run}. */
export type Steps<T> = Generator<unknown, T, any>;

/**
 * Runs steps that `yield` what may be a promise, and get its value back: at once up to the first promise. It is an `async` function
 * whose `await` costs nothing where there is nothing to wait for.
 */
export function run<T>(steps: Steps<T>): Awaitable<T> {
  const goOn = (step: () => IteratorResult<unknown, T>): Awaitable<T> => {
    for (let result = step(); ; ) {
      if (result.done) return result.value;
      const { value } = result;
      if (isPromise(value)) {
        return value.then(
          (found) => goOn(() => steps.next(found)),
          (error) => goOn(() => steps.throw(error)),
        );
      }
      result = steps.next(value);
    }
  };
  return goOn(() => steps.next());
}
