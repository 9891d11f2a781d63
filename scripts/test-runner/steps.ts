/** One part of the test run: a program, and how to read from its output how many tests it ran. */
export interface Step {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
  /** `one`: the whole step is one test, by its exit code. */
  readonly counts: "one" | "mocha" | "pytest";
  /** Debian packages whose programs it needs. */
  readonly packages?: readonly string[];
  /** The lab's end-to-end tests are left out of `scripts/test unit`. */
  readonly lab?: boolean;
}

/** From what fails fastest to what proves most. */
export const steps: readonly Step[] = [
  {
    name: "lint: TypeScript and JSON",
    command: ["npx", "biome", "check", "--error-on-warnings", "."],
    counts: "one",
  },
  {
    name: "lint: shell",
    command: ["scripts/test-runner/lint-shell"],
    counts: "one",
    packages: ["shellcheck"],
  },
  { name: "types", command: ["npx", "tsc", "--noEmit"], counts: "one" },
  { name: "reference of the config keys", command: ["scripts/config-reference", "--check"], counts: "one" },
  {
    name: "unit, components, golden",
    command: ["npx", "mocha"],
    counts: "mocha",
    packages: ["keepalived", "nftables", "shellcheck", "openssh-client", "python3", "systemd"],
  },
  { name: "host programs", command: ["host/test"], counts: "pytest", packages: ["python3-venv", "iproute2"] },
  { name: "speech app", command: ["app/test"], counts: "pytest", packages: ["python3-venv", "espeak-ng"] },
  {
    name: "the command plugin's conformance",
    command: ["npx", "mocha", "--config", "test/conformance/.mocharc.json"],
    counts: "mocha",
    packages: ["openssh-server", "openssh-client"],
  },
  {
    name: "lab, end to end",
    command: ["npx", "mocha", "--config", "test/lab/.mocharc.json"],
    counts: "mocha",
    packages: ["chromium", "curl"],
    lab: true,
  },
];
