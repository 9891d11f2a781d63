// How each command of the documentation is run. A command that no line here knows, in a block without a mark, fails the test.

/** Where a command of the documentation is run. */
export type Way =
  /** On this computer, in a copy of the repository, with a stack "office" and a home directory of its own. */
  | { readonly in: "copy"; readonly exits?: readonly number[] }
  /** Against the lab that runs: `scripts/test docs --state existing`. */
  | { readonly in: "lab"; readonly exits?: readonly number[] }
  /** By another test, whose file has these words. */
  | { readonly in: "test"; readonly file: string; readonly words: readonly string[] };

const copy = { in: "copy" } as const;
const lab = { in: "lab" } as const;
/** What finds something, or finds that something differs, says so by 1. */
const findings = [0, 1] as const;
const test = (file: string, ...words: readonly string[]): Way => ({ in: "test", file, words });

/** The first line that fits counts. */
const ways: readonly (readonly [RegExp, Way])[] = [
  [/ --help$/, copy],
  [/^cp /, copy],
  [/^npm ci$/, test("scripts/lib/bootstrap.sh", "npm ci")],
  [/^scripts\/config-reference( --check)?$/, copy],
  [/^scripts\/preview$/, lab],
  [/^scripts\/preview /, test("scripts/test-runner/steps.ts", "test/previews/.mocharc.json")],
  [/^scripts\/dashboards \w+$/, copy],
  [/^scripts\/dev (render|diff)(?!.* --lab)/, { ...copy, exits: findings }],
  [/^scripts\/dev (diff|apply)/, { ...lab, exits: findings }],
  [/^scripts\/test\b/, test(".ci/run", "scripts/test")],
  [/^scripts\/bench /, test("test/unit/bench.test.ts", "benchmarkNames")],

  [/^(scripts\/)?pulumi (login|stack init|stack select|config|preview) ?/, copy],
  [/^\(umask 077 && openssl rand -hex \d+ >~\/\.office-passphrase\)$/, copy],
  [/^export PULUMI_CONFIG_PASSPHRASE_FILE=~\/\.office-passphrase$/, copy],
  [/^openssl rand -hex \d+ \| pulumi config set --secret \w+$/, copy],
  [/^(scripts\/(lab )?)?pulumi (up|destroy)\b/, test("test/lab/bench.ts", '"up", "--yes"')],
  [/^scripts\/lab pulumi (preview|config set)/, lab],
  [/^scripts\/lab (up|down|destroy)/, test("test/lab/1-up.test.ts", '"lab", "up"', '"lab", "destroy"')],
  [/^scripts\/lab (status|exec|ssh|power-cut|power-on|unplug|plug) ?/, lab],

  [/^scripts\/cluster (status|doctor|releases)\b/, { ...lab, exits: findings }],
  [/^scripts\/cluster (logs|speak|where|failover|ssh|drain|undrain|trace|bench|backup)\b(?!.*--follow)/, lab],
  [/^scripts\/cluster restore \S+ --check$/, { ...lab, exits: findings }],
  [/^scripts\/cluster (upgrade|scale)\b/, test("test/cli/change.test.ts", '"upgrade"', '"scale"')],
  [/^scripts\/cluster unlock/, test("test/faults/faults.ts", '"unlock"')],
  [/^scripts\/cluster forget/, test("test/lab/4-destroy.test.ts", '"forget"')],

  [/^curl .*http:\/\/(127\.0\.0\.1|192\.168\.1\.100):7860\//, lab],
  [/^ssh (director|rs)-\d /, { ...lab, exits: [0, 1, 3] }],
  [/^ssh storage /, { ...lab, exits: [0, 1, 3] }],
];

export function wayOf(command: string): Way | undefined {
  return ways.find(([fits]) => fits.test(command))?.[1];
}

/** Pages of which every command needs the same. */
const pages: readonly (readonly [RegExp, string])[] = [
  [/^docs\/aws\.md$/, "an account of AWS, with its quotas, and money"],
];

/** Words in commands that stand for something of the reader's, and what they need. */
const placeholders: readonly (readonly [RegExp, string])[] = [
  [
    /\b(MONITOR|NODE|UNIT|MOUNTPOINT|ADDRESS[A-Z0-9-]*|VIP)\b/,
    "what an alert names: a machine, a unit, an address",
  ],
  [/\b(nvidia-smi|ipmitool|sensors)\b/, "a GPU, or the board that it is on"],
];

/** Why a command cannot be run by any test, where that holds for a whole page or for every such command. */
export function needOf(page: string, command: string): string | undefined {
  return [
    ...pages.filter(([fits]) => fits.test(page)),
    ...placeholders.filter(([fits]) => fits.test(command)),
  ][0]?.[1];
}
