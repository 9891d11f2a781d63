import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { execa } from "execa";
import { repository } from "../../scripts/lib/paths";
import { lab } from "../lab/bench";

/** Where the kit lies on a real server. */
const PLACE = "/srv/engine-kit";

const MODEL: Readonly<Record<string, string>> = {
  "cosyvoice3.yaml": "made: up\n",
  "llm.pt": "llm",
  "flow.pt": "flow",
  "hift.pt": "hift",
  "campplus.onnx": "campplus",
  "speech_tokenizer_v3.onnx": "tokens",
  "CosyVoice-BlankEN/config.json": "{}",
};

/**
 * All that an air-gapped real server is given for the engine cosyvoice, in the small: the stand-in for upstream's package as a
 * git checkout, numpy as the only package, a model of a few bytes. What it does not prove is upstream and a GPU.
 */
export class EngineKit {
  private constructor(
    private readonly folder: string,
    /** Three commits: one that speaks, one that speaks as well, one that cannot be imported. */
    readonly commits: readonly [string, string, string],
  ) {}

  static async make(): Promise<EngineKit> {
    const folder = await mkdtemp(join(tmpdir(), "engine-kit-"));
    const source = join(folder, "kit", "source");
    await cp(join(repository, "app/tests/standin"), source, {
      recursive: true,
      filter: (path) => !path.includes("__pycache__"),
    });
    const git = async (...args: string[]) =>
      (await execa("git", ["-c", "user.name=made up", "-c", "user.email=made@up", ...args], { cwd: source }))
        .stdout;
    const commit = async (change: string): Promise<string> => {
      await writeFile(join(source, "cosyvoice/cli/made_up.py"), change);
      await git("add", ".");
      await git("commit", "--quiet", "-m", "made up");
      return git("rev-parse", "HEAD");
    };
    await git("init", "--quiet");
    const commits = [await commit("NUMBER = 1\n"), await commit("NUMBER = 2\n")] as const;
    const module = join(source, "cosyvoice/cli/cosyvoice.py");
    await writeFile(module, `import no_such_package\n${await readFile(module, "utf8")}`);
    const broken = await commit("NUMBER = 3\n");

    const packages = await readFile(join(repository, "app/requirements.txt"), "utf8");
    await writeFile(join(folder, "lock.txt"), `${/^numpy==.*(\n {4}--hash.*)+/m.exec(packages)?.[0]}\n`);
    await execa(
      join(repository, "app/test"),
      [
        ...[
          "--python",
          "-m",
          "pip",
          "download",
          "--quiet",
          "--no-deps",
          "--require-hashes",
          "--only-binary=:all:",
        ],
        ...["--dest", join(folder, "kit/wheels"), "-r", join(folder, "lock.txt")],
      ],
      { stdin: "ignore" },
    );

    let checksums = "";
    for (const [name, text] of Object.entries(MODEL)) {
      const path = join(folder, "kit/weights", name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, text);
      checksums += `${createHash("sha256").update(text).digest("hex")}  ${name}\n`;
    }
    await writeFile(join(folder, "model.sha256"), checksums);
    return new EngineKit(folder, [...commits, broken]);
  }

  /** Settings of the stack by which this kit is what speaks. */
  settings(commit: string): Record<string, unknown> {
    return {
      "service.engine": "cosyvoice",
      app: {
        source: `${PLACE}/source`,
        ref: commit,
        requirements: join(this.folder, "lock.txt"),
        wheels: `${PLACE}/wheels`,
        model: {
          id: "made-up/Model-3",
          directory: `${PLACE}/weights`,
          checksums: join(this.folder, "model.sha256"),
        },
      },
    };
  }

  /** Puts the kit on a real server, as somebody with a disk in his pocket would. */
  async bring(realServer: string): Promise<void> {
    const { stdout } = await execa("tar", ["-C", join(this.folder, "kit"), "-c", "."], {
      encoding: "buffer",
      maxBuffer: 256 << 20,
    });
    await lab.exec(realServer, ["sh", "-c", `mkdir -p ${PLACE} && tar -x -C ${PLACE}`], { input: stdout });
  }

  /** A stand-in for nvidia-smi: the lab has no GPU. It makes the machine look as if it had one, and proves none. */
  async pretendGpu(realServer: string, memory = 16_384): Promise<void> {
    const program =
      "#!/bin/sh\n# The lab's stand-in: there is no GPU here.\n" +
      `case $1 in *driver*) echo 'Stand-in, 535.183.01, ${memory}' ;; *) echo Stand-in ;; esac\n`;
    const write = "cat >/usr/local/bin/nvidia-smi && chmod 755 /usr/local/bin/nvidia-smi";
    await lab.exec(realServer, ["sh", "-c", write], { input: program });
  }

  async remove(realServers: readonly string[]): Promise<void> {
    for (const name of realServers) {
      await lab.exec(name, ["rm", "-rf", PLACE, "/usr/local/bin/nvidia-smi"], { stdin: "ignore" });
    }
    await rm(this.folder, { recursive: true, force: true });
  }
}
