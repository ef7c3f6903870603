// Asks the planner's page in a headless Chromium: node page.mjs NODE_MODULES ADDRESS < questions.json
// The last line of stdout is JSON: milliseconds of the first answer, and each question's answer and milliseconds.
import { createRequire } from "node:module";
import { readdirSync, readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [modules, address] = process.argv.slice(2);
const from = createRequire(`${modules}/`);
const { default: chromium } = await import(pathToFileURL(from.resolve("@sparticuz/chromium")).href);
const { chromium: browsers } = from("playwright-core");
const browser = await browsers.launch({ executablePath: await chromium.executablePath(), args: chromium.args });
const page = await browser.newPage();
const elsewhere = [];
page.on("request", (asked) => asked.url().startsWith(address) || asked.url().startsWith("data:") || elsewhere.push(asked.url()));
const started = performance.now();
await page.goto(address);
await page.waitForFunction(() => window.last, null, { timeout: 300_000 });
const first = performance.now() - started;
const cpu = browsersCpu();
const answers = [];
for (const asked of JSON.parse(readFileSync(0, "utf8"))) {
  await page.evaluate(() => { window.last = undefined });
  for (const [name, value] of Object.entries(asked)) await page.fill(`[name=${name}]`, value);
  await page.focus("[name=model]");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => window.last, null, { timeout: 60_000 });
  answers.push(await page.evaluate(() => ({ ms: window.last.ms, ...window.last.found, html: undefined, why: undefined })));
}
console.log(JSON.stringify({ first, cpu, answers, elsewhere, version: browser.version() }));
await browser.close();

// CPU seconds of the browser's processes since they began: what others do meanwhile does not count. 0 where /proc is not.
function browsersCpu() {
  let ticks = 0;
  try {
    for (const id of readdirSync("/proc").filter((name) => Number(name))) {
      try {
        if (!readFileSync(`/proc/${id}/cmdline`, "latin1").includes("playwright_chromiumdev_profile")) continue;
        const words = readFileSync(`/proc/${id}/stat`, "latin1").split(") ").pop().split(" ");
        ticks += Number(words[11]) + Number(words[12]);
      } catch {} // it has ended
    }
  } catch {}
  return ticks / 100;
}
