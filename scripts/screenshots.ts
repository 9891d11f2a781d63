import { join } from "node:path";
import { Lab } from "../lab/lab";
import { type Locale, openBrowser, speakOnPage, visit } from "./lib/browser";
import { ensurePackages } from "./lib/debianPackages";
import { repository } from "./lib/paths";

const sentences: Record<Locale, string> = {
  "en-US":
    "Two directors share one address, and any of three nodes may answer you, [M][AY0][N][AH1][T] by minute.",
  "zh-CN": "两台调度器共用一个地址，三个节点中的任何一个都能回答您，您[h][ào]！",
};

const url = process.argv[2] ?? (await new Lab().url());
if (url === undefined) {
  console.error("scripts/screenshots: no lab runs here. Start one with scripts/lab up, or give a URL.");
  process.exit(2);
}
await ensurePackages(["chromium", "fonts-noto-cjk", "fonts-noto-color-emoji"]);
const browser = await openBrowser();
try {
  for (const [locale, sentence] of Object.entries(sentences) as [Locale, string][]) {
    const page = await browser.newPage({ locale, viewport: { width: 1180, height: 900 } });
    await visit(page, url, locale);
    await speakOnPage(page, sentence, locale);
    const path = `docs/images/page-${locale.slice(0, 2)}.png`;
    await page.screenshot({ path: join(repository, path), fullPage: true });
    console.log(path);
  }
} finally {
  await browser.close();
}
