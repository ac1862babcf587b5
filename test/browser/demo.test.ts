/** Tests the demo of examples/browser in a real Chromium: presses its keys and buttons, and reads its numbers and its picture. */

import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { serve } from "../../examples/browser/serve.mjs";
import { chromiumPath, launch, open } from "./chromium.ts";

const PATIENCE_MS = 20_000;
const LAPTOP = { viewport: { width: 1280, height: 800 }, reducedMotion: "reduce" } as const;
const SMALL = { viewport: { width: 900, height: 600 }, reducedMotion: "reduce" } as const;
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true } as const;

describe.skipIf(chromiumPath === undefined && !process.env.CI)("the demo in Chromium", () => {
  let browser: Browser;
  let isolated: Awaited<ReturnType<typeof serve>>;
  let plain: Awaited<ReturnType<typeof serve>>;
  let page: Page;
  let complaints: string[];

  beforeAll(async () => {
    [browser, isolated, plain] = await Promise.all([launch(), serve(), serve({ isolated: false })]);
  });
  afterAll(async () => {
    await browser?.close();
    await Promise.all([isolated?.close(), plain?.close()]);
  });
  afterEach(async () => {
    await page?.close();
    expect(complaints).toEqual([]);
  });

  async function show(options: BrowserContextOptions, address = isolated.address): Promise<void> {
    ({ page, complaints } = await open(browser, address, undefined, options));
    page.setDefaultTimeout(PATIENCE_MS);
  }

  const text = (selector: string): Promise<string> => page.locator(selector).innerText();
  const number = async (id: string): Promise<number> => Number(await page.locator(`#${id}`).getAttribute("data-value"));

  /** The number of tiles that all workers have rendered. */
  async function rendered(): Promise<number> {
    const cells = await page.locator("#workers tr td:nth-child(2)").allInnerTexts();
    return cells.reduce((sum, cell) => sum + Number(cell.replace(",", "")), 0);
  }

  /** Waits until all tiles in view are rendered, the workers are idle, and the numbers on the page no longer change. */
  async function settled(): Promise<void> {
    const calm = await page.evaluate(async (patience) => {
      const quiet = (): boolean =>
        /^\d+ tiles$/.test(document.querySelector("#progress")?.textContent ?? "") &&
        [...document.querySelectorAll("#workers small")].every((doing) => doing.textContent === "");
      const numbers = (): string =>
        [...document.querySelectorAll("#workers tr, .numbers dd, h2")].map((shown) => shown.textContent).join();
      // The numbers change twice a second.
      let [before, since] = ["", 0];
      for (const start = performance.now(); performance.now() - start < patience; ) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        const now = numbers();
        if (!quiet() || now !== before) [before, since] = [now, performance.now()];
        else if (performance.now() - since > 600) return true;
      }
      return false;
    }, PATIENCE_MS);
    expect(calm, "all tiles are rendered and all workers are idle").toBe(true);
  }

  /** A digest of the map's picture, and whether the picture has much detail. */
  const picture = (): Promise<string> =>
    page.evaluate(async () => {
      const png = new TextEncoder().encode(document.querySelector<HTMLCanvasElement>("#map")!.toDataURL());
      const digest = await crypto.subtle.digest("SHA-256", png);
      return `${png.length > 50_000 ? "much" : "little"} ${new Uint8Array(digest).join()}`;
    });

  async function press(key: string, times: number): Promise<void> {
    await page.locator("#map").focus();
    for (let i = 0; i < times; i++) await page.keyboard.press(key);
  }

  test("every tile is rendered once although every worker is asked for it, and a tile that comes into view again is read from the cache", async () => {
    await show(SMALL);
    await settled();
    const first = await rendered();
    // Tiles around the view are rendered in advance.
    expect(first).toBeGreaterThan(Number.parseInt(await text("#progress"), 10));
    expect([await number("entries"), await number("evictions")]).toEqual([first, 0]);
    // Every worker was asked for every tile.
    expect(await number("joined")).toBeGreaterThan(0);
    expect(await text("#participants")).toContain("4 participants");
    const before = await picture();
    expect(before).toMatch(/^much/);

    // Moves by less than the width of the view, so that every tile on the way is in one of the two views.
    await press("ArrowRight", 4);
    await settled();
    const away = await rendered();
    expect(away).toBeGreaterThan(first);
    expect(await picture()).not.toBe(before);

    await press("ArrowLeft", 4);
    // Key 0 returns to exactly the first view, without rounding errors.
    await press("0", 1);
    await settled();
    expect(await rendered()).toBe(away);
    expect(await picture()).toBe(before);
    expect(await number("entries")).toBe(away);
    expect(await number("hit-ratio")).toBeGreaterThan(0.3);
  });

  test("a worker can be added, another one terminated while it renders, and the others read at full speed", async () => {
    await show(SMALL);
    await settled();
    await page.locator("#add").click();
    await settled();
    expect(await text("#participants")).toContain("5 participants");
    expect(await page.locator("#workers tr").count()).toBe(4);

    // Zooms in to where each tile takes long, and then terminates a worker that renders.
    await page.mouse.move(234, 318);
    for (let i = 0; i < 8; i++) await page.mouse.wheel(0, -240);
    const busy = page.locator("#workers tr", { has: page.locator("small:not(:empty)") }).first();
    await busy.locator("button").click();
    // It may have finished its tile just before the click.
    while (!(await text("#news")).includes("while it rendered")) {
      await page.locator("#add").click();
      await page.mouse.move(234, 318);
      await page.mouse.wheel(0, -240);
      await busy.locator("button").click();
    }
    await page.waitForFunction(() => document.querySelector("#news")?.textContent?.includes("free again"));
    await settled();
    expect(await text("#news")).toMatch(
      /^Worker \d was terminated while it rendered \d+\/-?\d+\/-?\d+\. Its seat was free again after \d+ ms\. (Worker \d has rendered|It still finished) that tile\.$/,
    );
    expect(await page.locator("#workers tr").count()).toBe(3);
    expect(await text("#participants")).toContain("4 participants");

    await page.locator("#read").click();
    await page.waitForFunction(() => Number(document.querySelector<HTMLElement>("#rate")?.dataset.value) > 10_000);
    await page.locator("#read").click();
    await settled();
    expect(await number("rate")).toBeLessThan(100);
  });

  test("a smaller cache takes over the entries that fit, evicts later ones, and the map stays complete", async () => {
    await show(LAPTOP);
    await settled();
    const [entries, times, image] = [await number("entries"), await rendered(), await picture()];
    await page.locator("label", { hasText: /^4$/ }).click();
    await settled();
    expect(await text("#used")).toMatch(/ of 3\.\d MiB$/);
    expect([await number("entries"), await rendered(), await picture()]).toEqual([entries, times, image]);
    // Moves twice, each time to a view with none of the old tiles.
    for (const [key, times] of [
      ["ArrowRight", 11],
      ["ArrowDown", 9],
    ] as const) {
      await press(key, times);
      await settled();
    }
    expect(await number("evictions")).toBeGreaterThan(0);
    await page.locator("#clear").click();
    await page.waitForFunction(() =>
      document.querySelector("#news")?.textContent?.startsWith("Everything was removed"),
    );
    await settled();
  });

  test("with a cache for each worker, tiles that come into view again are rendered again", async () => {
    await show(SMALL);
    await settled();
    await page.locator("label", { hasText: "each its own" }).click();
    await settled();
    expect(await text("#participants")).toBe("3 caches");
    const before = await picture();
    await press("ArrowRight", 8);
    await settled();
    const away = await rendered();
    await press("ArrowLeft", 8);
    // Key 0 returns to exactly the first view, without rounding errors.
    await press("0", 1);
    await settled();
    expect(await rendered()).toBeGreaterThan(away);
    expect(await picture()).toBe(before);
  });

  test("the keyboard reaches every control, and the page fits on a phone", async () => {
    await show(PHONE);
    await settled();
    const reached = new Set<string>();
    for (let i = 0; i < 25; i++) {
      await page.keyboard.press("Tab");
      reached.add(
        await page.evaluate(() => document.activeElement?.id || document.activeElement?.getAttribute("name") || "?"),
      );
    }
    for (const id of ["map", "zoom-in", "zoom-out", "home", "tour", "add", "read", "sharing", "size", "clear"]) {
      expect(reached).toContain(id);
    }
    const { width, scroll } = await page.evaluate(() => ({
      width: innerWidth,
      scroll: document.documentElement.scrollWidth,
    }));
    expect([width, scroll]).toEqual([390, 390]);
  });

  test("a page that is not isolated says which headers are missing", async () => {
    await show(LAPTOP, plain.address);
    await page.locator("#not-isolated").waitFor();
    const message = await text("#not-isolated");
    expect(message).toContain("Cross-Origin-Opener-Policy: same-origin");
    expect(message).toContain("Cross-Origin-Embedder-Policy: require-corp");
    expect(message).toContain("ERR_UNSUPPORTED");
    expect(await page.locator("#demo").isVisible()).toBe(false);
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(false);
  });
});
