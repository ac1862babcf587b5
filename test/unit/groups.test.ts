/** What control groups do to a process, from made-up files as both versions, and both at once, write them. */

import { expect, test } from "vitest";
import { freezerOf, memoryOf } from "../../src/inspect/groups.ts";

const ROOT = "/sys/fs/cgroup";
const V2 = { [`${ROOT}/cgroup.controllers`]: "cpu memory\n" };

/** Reads made-up files; all others do not exist. */
function reading(files: Record<string, string>): (path: string) => string {
  return (path) => {
    const text = files[path];
    if (text === undefined) throw Object.assign(new Error(path), { code: "ENOENT" });
    return text;
  };
}

const frozenV2 = {
  ...V2,
  "/proc/7/cgroup": "0::/app.slice/web.service\n",
  [`${ROOT}/app.slice/web.service/cgroup.events`]: "populated 1\nfrozen 1\n",
  [`${ROOT}/app.slice/web.service/cgroup.freeze`]: "1\n",
};
const above = {
  ...frozenV2,
  [`${ROOT}/app.slice/web.service/cgroup.freeze`]: "0\n",
  [`${ROOT}/app.slice/cgroup.events`]: "populated 1\nfrozen 1\n",
  [`${ROOT}/app.slice/cgroup.freeze`]: "1\n",
};
const v1 = {
  "/proc/7/cgroup": "9:name=systemd:/\n6:freezer:/docker/abc\n4:memory:/docker/abc\n0::/\n",
  [`${ROOT}/freezer/docker/abc/freezer.state`]: "FROZEN\n",
  [`${ROOT}/freezer/docker/abc/freezer.self_freezing`]: "1\n",
};
test.each([
  ["version 2", frozenV2, `${ROOT}/app.slice/web.service/cgroup.freeze`],
  ["version 2, the group above", above, `${ROOT}/app.slice/cgroup.freeze`],
  ["version 2 that goes on", { ...frozenV2, [`${ROOT}/app.slice/web.service/cgroup.events`]: "frozen 0\n" }, null],
  ["version 1", v1, `${ROOT}/freezer/docker/abc/freezer.state`],
  [
    "version 1, the group above",
    {
      ...v1,
      [`${ROOT}/freezer/docker/abc/freezer.self_freezing`]: "0\n",
      [`${ROOT}/freezer/docker/freezer.state`]: "FROZEN\n",
      [`${ROOT}/freezer/docker/freezer.self_freezing`]: "1\n",
    },
    `${ROOT}/freezer/docker/freezer.state`,
  ],
  ["version 1 that is about to", { ...v1, [`${ROOT}/freezer/docker/abc/freezer.state`]: "FREEZING\n" }, null],
  ["version 1 that goes on", { ...v1, [`${ROOT}/freezer/docker/abc/freezer.state`]: "THAWED\n" }, null],
  [
    "version 2 beside version 1",
    {
      "/proc/7/cgroup": "6:freezer:/\n0::/web\n",
      [`${ROOT}/unified/web/cgroup.events`]: "frozen 1\n",
      [`${ROOT}/unified/web/cgroup.freeze`]: "1\n",
    },
    `${ROOT}/unified/web/cgroup.freeze`,
  ],
  ["a group outside of what is mounted", { ...frozenV2, "/proc/7/cgroup": "0::/../web\n" }, null],
  ["no control groups", {}, null],
  ["nonsense", { ...V2, "/proc/7/cgroup": "\0::::\n:\n0:\n" }, null],
])("the freezer: %s", (_, files, file) => {
  expect(freezerOf(7, reading(files))).toBe(file);
});

const [MIB, web, slice] = [1 << 20, `${ROOT}/app.slice/web.service`, `${ROOT}/app.slice`];
test.each([
  ["no limit", { ...frozenV2, [`${web}/memory.max`]: "max\n" }, undefined],
  [
    "version 2; files that can be dropped do not count",
    {
      ...frozenV2,
      [`${web}/memory.max`]: `${100 * MIB}\n`,
      [`${web}/memory.current`]: `${90 * MIB}\n`,
      [`${web}/memory.stat`]: `anon 5\ninactive_file ${30 * MIB}\nactive_file 1\n`,
    },
    { group: web, limit: 100 * MIB, used: 60 * MIB },
  ],
  [
    "the group above has less room",
    {
      ...frozenV2,
      [`${web}/memory.max`]: `${100 * MIB}\n`,
      [`${web}/memory.current`]: `${50 * MIB}\n`,
      [`${slice}/memory.max`]: `${200 * MIB}\n`,
      [`${slice}/memory.current`]: `${199 * MIB}\n`,
    },
    { group: slice, limit: 200 * MIB, used: 199 * MIB },
  ],
  ["what is used cannot be read", { ...frozenV2, [`${web}/memory.max`]: "4096\n" }, { group: web, limit: 4096 }],
  [
    "version 1, in a container that has its own group as the root",
    {
      ...v1,
      [`${ROOT}/memory/memory.limit_in_bytes`]: `${64 * MIB}\n`,
      [`${ROOT}/memory/memory.usage_in_bytes`]: `${20 * MIB}\n`,
      [`${ROOT}/memory/memory.stat`]: `inactive_file 7\ntotal_inactive_file ${21 * MIB}\n`,
    },
    { group: `${ROOT}/memory`, limit: 64 * MIB, used: 0 },
  ],
  [
    "version 1 without a limit",
    { ...v1, [`${ROOT}/memory/memory.limit_in_bytes`]: "9223372036854771712\n" },
    undefined,
  ],
])("memory: %s", (_, files, memory) => {
  expect(memoryOf(7, reading(files))).toEqual(memory);
});
