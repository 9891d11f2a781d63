import { fileURLToPath } from "node:url";
import { execaNode } from "execa";

/** What is measured on each platform: the program, and numbers of real servers. */
const platforms = {
  hosts: { program: "previewProgram.ts", sizes: [25, 50, 100, 200] },
  aws: { program: "previewProgramAws.ts", sizes: [100, 250, 500, 1000] },
} as const;

/**
 * The program's own time for a preview of many real servers, under Pulumi's mocks: config, rendering and registration,
 * without the CLI and without machines. Each size runs in a process of its own.
 */
export async function benchPreview(runs: number, platform: keyof typeof platforms): Promise<void> {
  console.log("real servers   min s   median s   max s   ms per real server (median)   MB");
  const { program, sizes } = platforms[platform];
  for (const size of sizes) {
    const times: number[] = [];
    let memory = 0;
    for (let run = 0; run < runs; run += 1) {
      const start = performance.now();
      const { stdout } = await execaNode(fileURLToPath(new URL(program, import.meta.url)), [String(size)], {
        nodeOptions: ["--import", "tsx"],
      });
      memory = Math.max(memory, Number(stdout.split("\n").at(-1)) / 1000);
      times.push((performance.now() - start) / 1000);
    }
    times.sort((a, b) => a - b);
    const median = times[Math.floor(times.length / 2)] ?? Number.NaN;
    const cells = [times[0], median, times.at(-1)].map((time) => (time ?? Number.NaN).toFixed(2).padStart(7));
    console.log(
      `${String(size).padStart(12)} ${cells.join("    ")}   ${((median * 1000) / size).toFixed(1).padStart(4)}   ${memory.toFixed(0)}`,
    );
  }
}
