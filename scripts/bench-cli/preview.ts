import { fileURLToPath } from "node:url";
import { execaNode } from "execa";

const SIZES = [25, 50, 100, 200];

/**
 * The program's own time for a preview of many real servers, under Pulumi's mocks: config, rendering and registration,
 * without the CLI and without machines. Each size runs in a process of its own.
 */
export async function benchPreview(runs: number): Promise<void> {
  console.log("real servers   min s   median s   max s   ms per real server (median)");
  for (const size of SIZES) {
    const times: number[] = [];
    for (let run = 0; run < runs; run += 1) {
      const start = performance.now();
      await execaNode(fileURLToPath(new URL("previewProgram.ts", import.meta.url)), [String(size)], {
        nodeOptions: ["--import", "tsx"],
      });
      times.push((performance.now() - start) / 1000);
    }
    times.sort((a, b) => a - b);
    const median = times[Math.floor(times.length / 2)] ?? Number.NaN;
    const cells = [times[0], median, times.at(-1)].map((time) => (time ?? Number.NaN).toFixed(2).padStart(7));
    console.log(
      `${String(size).padStart(12)} ${cells.join("    ")}   ${((median * 1000) / size).toFixed(1)}`,
    );
  }
}
