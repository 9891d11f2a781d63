import { stateDir } from "../lib/paths";

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
  /** What `scripts/test aws` runs: all that can be proved of the platform aws without an account. */
  readonly aws?: boolean;
  /** What it gets in its environment, besides this process's. */
  readonly environment?: Readonly<Record<string, string>>;
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
    packages: ["keepalived", "nftables", "shellcheck", "openssh-client", "python3", "systemd", "git"],
  },
  {
    name: "host programs",
    command: ["host/test"],
    counts: "pytest",
    packages: ["python3-venv", "iproute2", "git"],
  },
  {
    name: "speech app",
    command: ["app/test"],
    counts: "pytest",
    packages: ["python3-venv", "espeak-ng", "git"],
  },
  {
    name: "aws: configuration and resources",
    command: ["npx", "mocha", "--config", "test/aws/.mocharc.json"],
    counts: "mocha",
    aws: true,
  },
  {
    name: "aws: the VIP's mover",
    command: ["test/aws/mover/test"],
    counts: "pytest",
    packages: ["python3-venv", "iproute2", "keepalived"],
    aws: true,
  },
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

const selections: Record<string, (step: Step) => boolean> = {
  all: () => true,
  unit: (step) => !step.lab,
  lab: (step) => step.lab === true,
  aws: (step) => step.aws === true,
};

/**
 * The steps that the arguments of `scripts/test` ask for, or what is wrong with them.
 *
 * `faults` is no part of `all`: the lab's tests break a selection of things on their way, the whole matrix takes an hour.
 */
export function chooseSteps(args: readonly string[]): readonly Step[] | string {
  const [what = "all", ...rest] = args;
  if (what === "faults") return faultSteps(rest);
  const selected = selections[what];
  if (selected === undefined || rest.length > 0)
    return `"${args.join(" ")}" is not one of: ${Object.keys(selections).join(", ")}, faults [NAME...] [--state existing].`;
  return steps.filter(selected);
}

function faultSteps(args: readonly string[]): readonly Step[] | string {
  const names: string[] = [];
  let existing = false;
  for (let i = 0; i < args.length; i += 1) {
    const arg = args[i] as string;
    if (arg === "--state" && args[i + 1] === "existing") {
      existing = true;
      i += 1;
    } else if (arg.startsWith("-")) {
      return `"${arg}" is not known to faults: give names of faults, and --state existing for the lab that runs.`;
    } else names.push(arg);
  }
  return [
    {
      name: "faults",
      command: ["npx", "mocha", "--config", "test/faults/.mocharc.json"],
      counts: "mocha",
      packages: ["curl"],
      lab: true,
      environment: {
        COSYVOICE_LVS_FAULTS: names.join(",") || "all",
        COSYVOICE_LVS_FAULTS_RECORD: "1",
        ...(existing ? { COSYVOICE_LVS_STATE: stateDir() } : {}),
      },
    },
  ];
}
