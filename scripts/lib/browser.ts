import { type Browser, chromium, type Page } from "playwright-core";

/** What a file sounds like, as the browser's own decoder hears it. */
export interface Sound {
  /** s */
  readonly duration: number;
  /** Root mean square of the samples; 1 is full scale. */
  readonly loudness: number;
}

/** What the page says in each of its languages, where a program has to find something. */
const words = {
  "en-US": { text: "Text", speak: "Speak", made: "of audio" },
  "zh-CN": { text: "文本", speak: "生成语音", made: "音频" },
} as const;

/** A language of the page, as a browser asks for it. */
export type Locale = keyof typeof words;

/** Starts Debian's Chromium, without a window. Its microphone is one that Chromium makes up: it beeps every second. */
export function openBrowser(): Promise<Browser> {
  const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic"];
  const microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
  return chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: [...quiet, ...microphone, "--autoplay-policy=no-user-gesture-required"],
  });
}

/** Opens the page, and waits until it can be used: a hundred scripts take their time under emulation. */
export async function visit(page: Page, url: string, locale: Locale = "en-US"): Promise<void> {
  page.setDefaultTimeout(180_000);
  await page.goto(url, { waitUntil: "domcontentloaded", timeout: 180_000 });
  await page.getByRole("button", { name: words[locale].speak, exact: true }).waitFor();
}

/** Has the page speak a text. Returns the address of the result, as its list has it. */
export async function speakOnPage(page: Page, text: string, locale: Locale = "en-US"): Promise<string> {
  const { text: label, speak, made } = words[locale];
  await page.getByLabel(label, { exact: true }).first().fill(text);
  await page.getByRole("button", { name: speak, exact: true }).click();
  // Who made what, below the player; empty until then.
  await page.locator("#status").getByText(made).waitFor();
  return addressOf(page, text);
}

/** Has the English page record a voice to speak like by the microphone. Browsers do so over HTTPS and at 127.0.0.1 only. */
export async function recordOnPage(page: Page, seconds: number): Promise<void> {
  await page.getByRole("button", { name: "Speak like a recording" }).click();
  await page.getByLabel("Record audio").click();
  await page.getByRole("button", { name: "Record", exact: true }).click();
  await page.waitForTimeout(seconds * 1000);
  const uploaded = page.waitForResponse((answer) => answer.url().includes("/gradio_api/upload"));
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  const answer = await uploaded;
  if (!answer.ok()) throw new Error(`the recording was refused: ${answer.status()}`);
}

/** The address of the result of that text in the page's list. */
export async function addressOf(page: Page, text: string): Promise<string> {
  const result = page.locator("#results li").filter({ hasText: text }).first();
  const address = await result.locator("audio").getAttribute("src");
  return new URL(address ?? "", page.url()).href;
}

/** Plays the result of that text in the page's list, to its end; s of it that were played. */
export async function play(page: Page, text: string): Promise<number> {
  const player = page.locator("#results li").filter({ hasText: text }).first().locator("audio");
  return player.evaluate(
    (audio: unknown) =>
      new Promise<number>((resolve, reject) => {
        const element = audio as EventTarget & { play(): Promise<void>; currentTime: number };
        element.addEventListener("ended", () => resolve(element.currentTime));
        element.addEventListener("error", () => reject(new Error("the player reports an error")));
        element.play().catch(reject);
      }),
  );
}

/** Fetches a file as the page would, and listens to it. */
export function listen(page: Page, address: string): Promise<Sound> {
  return page.evaluate(async (from) => {
    const answer = await fetch(from);
    if (!answer.ok) throw new Error(`${from}: ${answer.status}`);
    interface Decoded {
      readonly duration: number;
      getChannelData(channel: number): Float32Array;
    }
    const { OfflineAudioContext } = globalThis as unknown as {
      OfflineAudioContext: new (
        channels: number,
        length: number,
        rate: number,
      ) => { decodeAudioData(data: ArrayBuffer): Promise<Decoded> };
    };
    const sound = await new OfflineAudioContext(1, 1, 24_000).decodeAudioData(await answer.arrayBuffer());
    const samples = sound.getChannelData(0);
    return {
      duration: sound.duration,
      loudness: Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / samples.length),
    };
  }, address);
}
