/** What pages speak of and what comes with parts that are not merged yet; once it is there, its name here does nothing, and goes. */
export const coming: ReadonlySet<string> = new Set([
  ...["upgrade", "scale", "bench", "trace", "backup", "restore"].map((name) => `scripts/cluster ${name}`),
  "test/cli/change.test.ts",
]);
