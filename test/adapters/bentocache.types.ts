/** The types of the drivers with those of bentocache: compiled by bentocache.test.ts, never run. */

import { bentostore } from "bentocache";
import type { CreateDriverResult, L1CacheDriver, L2CacheDriver } from "bentocache/types";
import { type Cache, openCache } from "cache-machine";
import {
  type CacheMachineDriver,
  type CacheMachineDriverOptions,
  type CacheMachineL2Driver,
  cacheMachineDriver,
  cacheMachineL2Driver,
} from "cache-machine/bentocache";

bentostore().useL1Layer(cacheMachineDriver());
bentostore()
  .useL1Layer(cacheMachineDriver({ cache: openCache("a"), serialize: false }))
  .useL2Layer(cacheMachineL2Driver({ name: "b", size: "64mb", path: "/dev/shm", prefix: "p" }));
const users: Cache<{ name: string }> = openCache("users");
const options: CacheMachineDriverOptions = { cache: users };

const first: CreateDriverResult<L1CacheDriver> = cacheMachineDriver(options);
const second: CreateDriverResult<L2CacheDriver> = cacheMachineL2Driver(options);
export const drivers: [L1CacheDriver, CacheMachineDriver] = [first.factory({}), cacheMachineDriver().factory({})];
export const remote: [L2CacheDriver, CacheMachineL2Driver] = [second.factory({}), cacheMachineL2Driver().factory({})];

// @ts-expect-error An L2 driver answers with promises.
bentostore().useL1Layer(cacheMachineL2Driver());
// @ts-expect-error An L1 driver answers at once.
bentostore().useL2Layer(cacheMachineDriver());
// @ts-expect-error There is no such option.
cacheMachineDriver({ maxItems: 5 });
