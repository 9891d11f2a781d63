/** Everything that is downloaded, by whom, and what says that it is what was meant. A source that is not listed here fails the test. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { repository } from "../../scripts/lib/paths";

const files = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
  cwd: repository,
  encoding: "utf8",
})
  .split("\n")
  .filter((name) => name !== "");
const read = (name: string) => readFileSync(join(repository, name), "utf8");
const named = (pattern: RegExp) => files.filter((name) => pattern.test(name));

/** Programs that download, each with what pins what it gets, as it stands in its text. */
const downloads: Readonly<Record<string, readonly RegExp[]>> = {
  // npm: package-lock.json has the hash of every package.
  "scripts/lib/bootstrap.sh": [/npm ci /],
  // pip: with hashes, or nothing.
  "app/test": [/pip" install .*--require-hashes/],
  "host/test": [/pip" install .*--require-hashes/],
  "test/aws/mover/test": [/pip" install .*--require-hashes/],
  "app/lock": [/--require-hashes/],
  "host/build-env": [/--require-hashes --only-binary=:all:/],
  "scripts/wheelhouse": [/--require-hashes --no-deps/],
  // git: a commit is its own hash, and is looked at again.
  "host/install-efs-utils": [/rev-parse HEAD\)" = "\$commit" \]/],
  "host/engine.py": [/"checkout", "--quiet", "--detach", commit/],
  // Weights: compared with hashes that are pinned, or that the hub states.
  "host/weights.py": [/sha256/],
  // What is in no package: by its hash.
  "host/fetch-program.py": [/found != sha256/],
  // The vendor's pulumi: by its hash.
  "scripts/toolchain/cli.ts": [/found !== expected/],
  // Go modules: go.sum has their hashes, and may not be written.
  "scripts/toolchain/goBuild.ts": [/-mod=readonly/],
  // Debian's packages: signed, and checked by apt.
  "host/apply.py": [/apt-get/],
  "scripts/lib/debianPackages.ts": [/apt-get/],
  "host/bootstrap.sh": [/apt-get/],
  "lab/hostPackages.ts": [/apt-get/],
  "lab/image.ts": [/mmdebstrap/],
  "lab/images/machine/customize": [/apt-get/, /\/lab-build\/build-env /],
};

/** Programs that ask by HTTP, but only the service that they are beside. */
const neighbours = ["bench/app_speed.py", "host/say.py", "host/silence.py"];

/** How a program downloads, by the language it is written in. */
const ways: readonly (readonly [language: RegExp, ways: RegExp])[] = [
  [/\.m?ts$/, /"apt-get"|"npm"|"pip"|exec mmdebstrap|"go", args|fetch\(url/],
  [/\.py$/, /"apt-get"|"fetch", |"pip", "install"|urlopen\(|Opener|HTTPSConnection/],
  [
    /./,
    /\bnpm (ci|install)\b|\bpip" (install|download)|-m pip install|\bgit( -C \S+)? (clone|fetch)\b|\bapt-get (install|update)|\bwget http|curl [^|\n]*https:/,
  ],
];

/** Whether a program downloads, as far as its text shows it. What is said about that in comments is passed over. */
function isDownloader(name: string): boolean {
  const code = read(name).replace(/^\s*(#|\/\/|\*|\/\*).*$/gm, "");
  return ways.find(([language]) => language.test(name))?.[1].test(code) ?? false;
}

describe("what is downloaded", () => {
  it("is downloaded by programs that are listed", () => {
    const programs = files.filter(
      (name) => !/(^docs\/|^test\/|\/tests\/|\.md$|\.txt$|\.in$|^Pulumi|\.yml$|package-lock)/.test(name),
    );
    const found = programs.filter((name) => isDownloader(name) && !neighbours.includes(name));
    assert.deepEqual(
      found.filter((name) => downloads[name] === undefined),
      [],
    );
  });

  for (const [name, pins] of Object.entries(downloads)) {
    it(`is pinned or signed where ${name} gets it`, () => {
      for (const pin of pins) assert.ok(pin.test(read(name)), `${pin}`);
    });
  }

  it("has a hash in package-lock.json, for every package", () => {
    const { packages } = JSON.parse(read("package-lock.json")) as Record<
      string,
      Record<string, { integrity?: string }>
    >;
    const bare = Object.entries(packages ?? {}).filter(
      ([path, { integrity }]) => path !== "" && !/^sha512-/.test(integrity ?? ""),
    );
    assert.deepEqual(
      bare.map(([path]) => path),
      [],
    );
  });

  it("has a hash in every lock file for pip, for every package", () => {
    const locks = named(/(requirements[^/]*|engine\/cosyvoice)\.txt$/);
    assert.ok(locks.length >= 6, locks.join());
    for (const lock of locks) {
      const entries = read(lock)
        .replace(/\\\n/g, " ")
        .split("\n")
        .filter((line) => /^[a-zA-Z0-9]/.test(line));
      assert.ok(entries.length > 0, lock);
      for (const entry of entries) assert.match(entry, /==\S+ .*--hash=sha256:[0-9a-f]{64}/, lock);
    }
  });

  it("has a hash in a go.sum, for every module", () => {
    for (const module of named(/go\.mod$/)) {
      const sums = read(module.replace(/mod$/, "sum"));
      // A module in place of another one has a version and a hash as well: none is a folder.
      for (const [line] of read(module).matchAll(/^.* => .*$/gm)) assert.match(line, / => \S+\/\S+ v\S+$/);
      for (const [, path, version] of read(module).matchAll(/^(?:require |.* => )?\s*(\S+\/\S+) (v\S+)$/gm))
        assert.ok(sums.includes(`${path} ${version} h1:`), `${module}: ${path}`);
    }
  });

  it("is at a full commit, with its version beside it, for every action of the workflows", () => {
    const workflows = named(/^\.github\/.*\.yml$/);
    const used = workflows.flatMap((name) =>
      [...read(name).matchAll(/uses: (.*)$/gm)].map(([, what = ""]) => what),
    );
    assert.ok(used.length > 0);
    for (const what of used) assert.match(what, /^(\.\/\S+|[\w.-]+\/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)$/);
  });
});

describe("the workflows", () => {
  interface Job {
    readonly permissions?: Record<string, string>;
    readonly environment?: string;
    readonly steps: readonly {
      readonly run?: string;
      readonly with?: Record<string, unknown>;
      readonly uses?: string;
    }[];
  }
  interface Workflow {
    readonly on: Record<string, unknown>;
    readonly permissions: Record<string, string>;
    readonly concurrency: { readonly "cancel-in-progress": boolean };
    readonly jobs: Record<string, Job>;
  }
  const workflows = named(/^\.github\/workflows\//).map(
    (name) => [name, parse(read(name)) as Workflow] as const,
  );

  it("may read, and write nothing but the comment", () => {
    for (const [name, { permissions, jobs }] of workflows) {
      assert.deepEqual(permissions, { contents: "read" }, name);
      const writes = Object.entries(jobs).flatMap(([job, { permissions: own = {} }]) =>
        Object.entries(own).flatMap(([what, right]) => (right === "write" ? [`${job} ${what}`] : [])),
      );
      // An identity token is for logging in to AWS.
      assert.deepEqual(
        writes.filter((right) => !right.endsWith("id-token")),
        name.endsWith("preview.yml") ? ["comment pull-requests"] : [],
      );
    }
  });

  it("give nothing that writes to what a pull request brings", () => {
    for (const [name, { on, jobs }] of workflows) {
      assert.ok(!("pull_request_target" in on), name);
      for (const { permissions = {}, steps } of Object.values(jobs)) {
        const checkouts = steps.filter(({ uses = "" }) => uses.startsWith("actions/checkout@"));
        for (const checkout of checkouts) assert.equal(checkout.with?.["persist-credentials"], false, name);
        if (permissions["pull-requests"] !== "write") continue;
        assert.match(String(checkouts[0]?.with?.ref), /github\.event\.pull_request\.base\.sha/);
        assert.ok(!steps.some(({ run = "" }) => /npm|scripts\/(?!ci\/)/.test(run)));
      }
    }
  });

  it("never cancel a deployment, which waits for its approval", () => {
    for (const [name, { concurrency, jobs }] of workflows) {
      for (const { steps, environment } of Object.values(jobs)) {
        if (!steps.some(({ run = "" }) => / up\b.*--yes/.test(run))) continue;
        assert.equal(concurrency["cancel-in-progress"], false, name);
        assert.equal(environment, "production");
        assert.ok(steps.some(({ run = "" }) => run.includes("--policy-pack policy")));
      }
    }
    assert.ok(workflows.some(([name]) => name.endsWith("deploy.yml")));
  });
});
