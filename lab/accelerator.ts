import { constants } from "node:fs";
import { access, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { cacheDir } from "../scripts/lib/paths";

/** How QEMU runs the virtual machine's code: by the processor's virtualization, or by emulation. */
export type Accelerator = "kvm" | "tcg";

/** QEMU's options for it. */
export function acceleratorArguments(accelerator: Accelerator): string[] {
  return accelerator === "kvm"
    ? ["-accel", "kvm", "-cpu", "host"]
    : // The buffer of translated code counts towards the lab's memory; 512 MiB hold what the machines run.
      ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"];
}

/** What was found about KVM on this computer since it was started. */
interface Finding {
  readonly bootId: string;
  readonly kvm: boolean;
}

/**
 * Whether KVM is worth a try. /dev/kvm may be there, open, and a guest on it still hang silently: so only a guest's
 * progress decides, and what was found is remembered until this computer is started again.
 *
 * @returns `untried` when /dev/kvm can be opened and nothing is known yet.
 */
export async function kvmKnowledge(): Promise<"works" | "no" | "untried"> {
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return "no";
  }
  try {
    const finding = JSON.parse(await readFile(findingFile(), "utf8")) as Finding;
    if (finding.bootId === (await bootId())) return finding.kvm ? "works" : "no";
  } catch {
    // Nothing known yet.
  }
  return "untried";
}

/** Remembers whether a guest made progress on KVM. */
export async function rememberKvm(works: boolean): Promise<void> {
  const finding: Finding = { bootId: await bootId(), kvm: works };
  await mkdir(dirname(findingFile()), { recursive: true });
  await writeFile(findingFile(), `${JSON.stringify(finding)}\n`);
}

function findingFile(): string {
  return join(cacheDir(), "lab", "kvm.json");
}

async function bootId(): Promise<string> {
  return (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
}
