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

/** Whose programs read what monitoring is made of. */
const monitoringPackages = [
  "prometheus",
  "prometheus-alertmanager",
  "prometheus-blackbox-exporter",
  "prometheus-node-exporter",
];

/** The real programs around a real speech service, from the fault to who is told. */
const monitoring: Step = {
  name: "monitoring, without machines",
  command: ["npx", "mocha", "--config", "test/monitoring/.mocharc.json"],
  counts: "mocha",
  packages: [...monitoringPackages, "python3-venv", "espeak-ng"],
};

/** The real collector and the real Loki around two real speech services. */
const logs: Step = {
  name: "logs, without machines",
  command: ["npx", "mocha", "--config", "test/monitoring/logs/.mocharc.json"],
  counts: "mocha",
  packages: ["systemd-journal-remote", "python3-venv", "espeak-ng"],
};

/** Whether what the documentation names is there, and its commands do what it says, as far as that needs no machines. */
const docs: Step = {
  name: "documentation",
  command: ["npx", "mocha", "--config", "test/docs/.mocharc.json"],
  counts: "mocha",
  packages: ["openssh-client", "openssl", "git"],
};

/** How a part of the tests is run in a lab that runs already. */
const some = ["npx", "mocha", "--no-config", "--node-option", "import=tsx", "--timeout"] as const;

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
  {
    name: "lint: workflows",
    command: ["node", "--import", "tsx", "scripts/test-runner/lint-workflows.ts"],
    counts: "one",
    packages: ["shellcheck"],
  },
  { name: "types", command: ["npx", "tsc", "--noEmit"], counts: "one" },
  { name: "reference of the config keys", command: ["scripts/config-reference", "--check"], counts: "one" },
  {
    name: "unit, components, golden",
    command: ["npx", "mocha", "test/{unit,components,golden}/**/*.test.ts"],
    counts: "mocha",
    packages: [
      ...["keepalived", "nftables", "shellcheck", "openssh-client", "python3", "systemd", "git"],
      ...monitoringPackages,
    ],
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
  monitoring,
  {
    name: "the command plugin's conformance",
    command: ["npx", "mocha", "--config", "test/conformance/.mocharc.json"],
    counts: "mocha",
    packages: ["openssh-server", "openssh-client", "iproute2"],
  },
  docs,
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
 * `faults` is no part of `all`: the lab's tests break a selection of things on their way, the whole matrix takes an hour. Nor are
 * `engine`, `security` and the lab's part of `cli` and of `monitoring`: what they prove with machines is tested without them in
 * every run. Nor is `monitoring --logs`.
 */
export function chooseSteps(args: readonly string[]): readonly Step[] | string {
  const [what = "all", ...rest] = args;
  if (what === "cli") return cliSteps(rest);
  if (what === "faults") return faultSteps(rest);
  if (what === "monitoring") return monitoringSteps(rest);
  if (what === "security") return securitySteps(rest);
  if (what === "docs") return docsSteps(rest);
  const apart = extras[what];
  if (apart !== undefined && rest.length === 0) return [apart];
  const selected = selections[what];
  if (selected === undefined || rest.length > 0)
    return `"${args.join(" ")}" is not one of: ${Object.keys(selections).join(", ")}, previews, engine, security [native | lab], cli [--state existing], faults [NAME...] [--state existing], monitoring [--state existing | --logs], docs [--state existing].`;
  return steps.filter(selected);
}

/**
 * What takes too long for every run, by its name. Those with `lab` take the one that COSYVOICE_LVS_STATE names, or make one; previews are
 * made of functions that every run tests.
 */
const extras: Readonly<Record<string, Step>> = {
  previews: {
    name: "previews and the policy pack, by pulumi",
    command: ["npx", "mocha", "--config", "test/previews/.mocharc.json"],
    counts: "mocha",
  },
  engine: {
    name: "the engine's installation, in the lab",
    command: ["npx", "mocha", "--config", "test/engine/.mocharc.json"],
    counts: "mocha",
    packages: ["curl", "git"],
    lab: true,
  },
};

/** Attacks and what withstands them: on this computer, against the real programs, and in a lab. */
function securitySteps(args: readonly string[]): readonly Step[] | string {
  const [where, ...more] = args;
  if (more.length > 0 || (where !== undefined && where !== "native" && where !== "lab"))
    return `"${args.join(" ")}" is not known to security: give native or lab, or nothing for both.`;
  const native: readonly Step[] = [
    {
      name: "security: certificates by ACME, slow clients",
      command: ["npx", "mocha", "--no-config", "--node-option", "import=tsx", "test/security/*.test.ts"],
      counts: "mocha",
      packages: ["lego", "curl"],
    },
    {
      name: "security: the API under fire",
      command: ["test/security/api/test"],
      counts: "one",
      packages: ["python3-venv", "espeak-ng"],
    },
  ];
  const lab: Step = {
    name: "security, in the lab",
    command: ["npx", "mocha", "--config", "test/security/lab/.mocharc.json"],
    counts: "mocha",
    packages: ["chromium", "curl"],
    lab: true,
  };
  return [...(where === "lab" ? [] : native), ...(where === "native" ? [] : [lab])];
}

/** What is known of scripts/cluster; with a cluster only where one runs, for it takes one. */
function cliSteps(args: readonly string[]): readonly Step[] | string {
  const existing = args.join(" ") === "--state existing";
  if (args.length > 0 && !existing) {
    return `"${args.join(" ")}" is not known to cli: give --state existing to include the running lab.`;
  }
  const some = ["npx", "mocha", "--no-config", "--node-option", "import=tsx", "--timeout"] as const;
  const files = ["cluster-*", "doctor", "failover", "ssh", "locks", "load"].map(
    (name) => `test/unit/${name}.test.ts`,
  );
  const alone: Step = {
    name: "scripts/cluster, without machines",
    command: [...some, "20000", ...files],
    counts: "mocha",
    packages: ["openssh-client", "python3"],
  };
  const sent: Step = {
    name: "what scripts/cluster sends to machines",
    command: ["host/test", "-k", "capture or share or alerts or probe or examine"],
    counts: "pytest",
    packages: ["python3-venv", "iproute2"],
  };
  const lab: Step = {
    name: "scripts/cluster, in the lab",
    command: [...some, "900000", "test/lab/1c-operate.test.ts", "test/cli/*.test.ts"],
    counts: "mocha",
    lab: true,
    environment: { COSYVOICE_LVS_STATE: stateDir() },
  };
  return [alone, sent, ...(existing ? [lab] : [])];
}

/**
 * What is known of monitoring; in the lab only where one runs, for it takes a whole cluster. Logs by themselves: Loki and the
 * collector are built for them, which takes minutes the first time.
 */
function monitoringSteps(args: readonly string[]): readonly Step[] | string {
  const given = args.join(" ");
  if (given === "--logs") return [logs];
  const existing = given === "--state existing";
  if (args.length > 0 && !existing) {
    return `"${given}" is not known to monitoring: give --state existing to include the running lab, or --logs to test only the logs.`;
  }
  const files = ["unit/config-monitoring", "components/monitoring", "golden/monitoring", "golden/dashboards"];
  const texts: Step = {
    name: "monitoring: texts, alerts, runbooks",
    command: [...some, "20000", ...files.map((file) => `test/${file}.test.ts`)],
    counts: "mocha",
    packages: [...monitoringPackages, "systemd"],
  };
  const readings: Step = {
    name: "monitoring: readings, relay, fetched programs",
    command: ["host/test", "-k", "exporter or relay or fetch"],
    counts: "pytest",
    packages: ["python3-venv", "iproute2", "keepalived"],
  };
  const lab: Step = {
    name: "monitoring, in the lab",
    command: [...some, "900000", "test/monitoring/lab/monitoring.test.ts"],
    counts: "mocha",
    lab: true,
    environment: { COSYVOICE_LVS_STATE: stateDir() },
  };
  const labAlerts: Step = {
    ...lab,
    name: "each alert by its fault, in the lab",
    command: [...some, "1800000", "test/monitoring/lab/alerts.test.ts"],
  };
  const labLogs: Step = {
    ...lab,
    name: "logs, in the lab",
    command: [...some, "1200000", "test/monitoring/lab/logs.test.ts"],
  };
  const labDashboards: Step = {
    ...lab,
    name: "dashboards, in the lab",
    command: [...some, "900000", "test/monitoring/lab/dashboards.test.ts"],
  };
  return [texts, readings, monitoring, ...(existing ? [lab, labDashboards, labAlerts, labLogs] : [])];
}

/** The documentation's commands; those that want a cluster only where one runs. */
function docsSteps(args: readonly string[]): readonly Step[] | string {
  const existing = args.join(" ") === "--state existing";
  if (args.length > 0 && !existing) {
    return `"${args.join(" ")}" is not known to docs: give --state existing to include the running lab.`;
  }
  const lab: Step = {
    name: "documentation, in the lab",
    command: [...some, "600000", "test/docs/lab.test.ts"],
    counts: "mocha",
    packages: ["curl", "espeak-ng"],
    lab: true,
    environment: { COSYVOICE_LVS_STATE: stateDir() },
  };
  return [docs, ...(existing ? [lab] : [])];
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
      return `"${arg}" is not known to faults: give names of faults, and --state existing to use the running lab.`;
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
