import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join, relative } from "node:path";
import { execa } from "execa";
import { cacheDir, repository } from "../scripts/lib/paths";
import { hostAptSources, suite } from "./aptSources";
import { LabError } from "./errors";
import { systemPath } from "./hostPackages";

/**
 * The images: the lab's virtual machine's own disk, the root file system that the machines in it share, and the disk of
 * the benchmark's virtual machine, which is built only when a benchmark runs.
 */
export type ImageKind = "machine" | "vm" | "bench";

/** A built image, in the cache. */
export interface Image {
  readonly kind: ImageKind;
  /** Of everything that went into it; its directory's name. */
  readonly hash: string;
  /** ext4, without a partition table. */
  readonly disk: string;
  /** Only a virtual machine's image has these two. */
  readonly kernel: string;
  readonly initrd: string;
}

/** Where an image of that hash is, or would be. */
export function imageAt(kind: ImageKind, hash: string): Image {
  const directory = join(imagesDir(), `${kind}-${hash}`);
  const file = (name: string) => join(directory, name);
  return { kind, hash, disk: file("disk"), kernel: file("kernel"), initrd: file("initrd") };
}

/** The cached images' directory. */
export function imagesDir(): string {
  return join(cacheDir(), "lab", "images");
}

export async function imageExists(image: Image): Promise<boolean> {
  return (await stat(image.disk).catch(() => undefined)) !== undefined;
}

/** The hash of what the image is made of, as the work tree has it now. */
export async function imageHash(kind: ImageKind): Promise<string> {
  const hash = createHash("sha256").update(`${suite}\n`);
  for (const file of await inputs(kind)) {
    const content = await readFile(file).catch(() => undefined);
    if (content === undefined) continue;
    const executable = ((await stat(file)).mode & 0o100) !== 0;
    hash.update(`${relative(repository, file)} ${executable} ${content.length}\n`).update(content);
  }
  return hash.digest("hex").slice(0, 16);
}

/**
 * The image for the work tree as it is now, from the cache or else built (minutes): by mmdebstrap from the host's own
 * package sources, as root or as an ordinary user, without loop devices.
 *
 * @param note is told what goes on
 * @throws LabError when the build fails, with its log.
 */
export async function ensureImage(kind: ImageKind, note: (text: string) => void): Promise<Image> {
  const image = imageAt(kind, await imageHash(kind));
  if (await imageExists(image)) return image;
  await mkdir(imagesDir(), { recursive: true });
  const log = join(imagesDir(), `${kind}.log`);
  note(`building the ${kind} image`);
  const directory = await mkdtemp(join(imagesDir(), "building-"));
  try {
    await build(kind, directory, log);
    // Only a whole image gets the name that is looked for.
    await rename(directory, join(imagesDir(), `${kind}-${image.hash}`)).catch(async (error: unknown) => {
      // Another process may have built the same one meanwhile.
      if (!(await imageExists(image))) throw error;
    });
  } catch (error) {
    if (error instanceof LabError) throw error;
    throw new LabError(
      `The ${kind} image could not be built with mmdebstrap.`,
      "The log above names the reason: most often a package source that cannot be reached (apt-get update), or no room in /tmp (TMPDIR=DIRECTORY moves the work).",
      log,
      { cause: error },
    );
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  await prune(kind);
  return image;
}

/** Removes all but the newest three images of a kind: each takes up to 1 GB. */
async function prune(kind: ImageKind): Promise<void> {
  const images: { path: string; built: number }[] = [];
  for (const name of await readdir(imagesDir())) {
    const path = join(imagesDir(), name);
    const disk = name.startsWith(`${kind}-`)
      ? await stat(join(path, "disk")).catch(() => undefined)
      : undefined;
    if (disk !== undefined) images.push({ path, built: disk.mtimeMs });
  }
  images.sort((a, b) => b.built - a.built);
  for (const { path } of images.slice(3)) await rm(path, { recursive: true, force: true });
}

async function build(kind: ImageKind, directory: string, logPath: string): Promise<void> {
  const own = join(repository, "lab", "images", kind);
  const scratch = await mkdtemp(join(tmpdir(), "cosyvoice-lvs-image-"));
  try {
    const archive = join(scratch, "files.tar");
    await pack(kind, scratch, archive);
    const sources = await hostAptSources();
    const sourcesFile = join(scratch, "host.sources");
    if (sources !== undefined) await writeFile(sourcesFile, sources);
    const packages = await packageList(join(own, "packages"));
    const excluded = ["man", "doc", "info", "locale"].map(
      (part) => `--dpkgopt=path-exclude=/usr/share/${part}/*`,
    );
    const hooks = [
      `tar-in ${archive} /`,
      // From inside, for the root of a user namespace may not be able to read the user's files.
      'exec "$1/lab-build/customize" "$1"',
      ...(kind === "machine" ? [] : ["kernel", "initrd"]).map(
        (name) => `download /lab-build/${name} ${join(directory, name)}`,
      ),
      'exec "$1/lab-build/write-ext4" "$1"',
    ];
    const args = [
      // Also as root: its mounts are then gone with it.
      "--mode=unshare",
      "--variant=apt",
      "--format=null",
      // Clean-up comes after the hooks, too late for an image written by one; the hooks do it.
      "--skip=cleanup",
      "--dpkgopt=force-unsafe-io",
      ...excluded,
      `--include=${packages.join(",")}`,
      ...hooks.map((hook) => `--customize-hook=${hook}`),
      suite,
      "/dev/null",
      ...(sources === undefined ? [] : [sourcesFile]),
    ];
    // The last hook writes to descriptor 9, whoever it runs as. mmdebstrap itself needs the low ones free.
    const script = 'log=$1 disk=$2; shift 2; exec mmdebstrap "$@" >"$log" 2>&1 9>"$disk"';
    await execa("sh", ["-c", script, "sh", logPath, join(directory, "disk"), ...args], {
      stdin: "ignore",
      env: { ...pipEnvironment(), ...systemPath(), ...imageEnvironment(kind) },
    });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

function imageEnvironment(kind: ImageKind): NodeJS.ProcessEnv {
  return {
    LAB_IMAGE_LABEL: `lab-${kind}`,
    // MiB. The machines' image is only read; a virtual machine writes a little.
    LAB_IMAGE_SLACK: kind === "machine" ? "0" : "300",
    // Debian's kernel package: no initial RAM disk, the hook makes its own.
    INITRD: "No",
  };
}

/** pip's settings of the host are passed on, less those that name a path that is not in the image. */
function pipEnvironment(): NodeJS.ProcessEnv {
  return { PIP_FIND_LINKS: undefined, PIP_CONFIG_FILE: undefined, PIP_CERT: undefined };
}

/** The files of the image's tree, and in /lab-build what its hook needs; all of them root's. */
async function pack(kind: ImageKind, scratch: string, archive: string): Promise<void> {
  const extra = join(scratch, "extra");
  await mkdir(join(extra, "lab-build"), { recursive: true });
  for (const [name, source] of await buildFiles(kind)) {
    await execa("cp", ["--", source, join(extra, "lab-build", name)]);
  }
  const tree = join(repository, "lab", "images", kind, "files");
  const args = ["--owner=root:0", "--group=root:0", "--mode=u=rwX,go=rX", "-cf", archive];
  await execa("tar", [...args, "-C", tree, ".", "-C", extra, "."]);
}

/** What the hook finds in /lab-build: name there, path here. */
async function buildFiles(kind: ImageKind): Promise<[string, string][]> {
  const images = join(repository, "lab", "images");
  const hooks: [string, string][] = [
    ["customize", join(images, kind, "customize")],
    ["write-ext4", join(images, "write-ext4")],
  ];
  if (kind !== "machine") return [...hooks, ["initramfs-init", join(images, kind, "initramfs-init")]];
  const present = async (...candidates: (string | undefined)[]) => {
    for (const path of candidates) {
      if (path !== undefined && (await stat(path).catch(() => undefined))?.isFile()) return path;
    }
    return undefined;
  };
  const files: [string, string | undefined][] = [...hooks, ["cached", join(images, kind, "cached")]];
  const lock = await present(join(repository, "app", "requirements.txt"));
  const buildEnv = await present(join(repository, "host", "build-env"));
  if (lock !== undefined && buildEnv !== undefined) {
    const env = process.env;
    const home = homedir();
    files.push(
      ["requirements.txt", lock],
      ["build-env", buildEnv],
      ["pip.conf", await present("/etc/pip.conf")],
      [
        "user-pip.conf",
        await present(env.PIP_CONFIG_FILE, `${home}/.config/pip/pip.conf`, `${home}/.pip/pip.conf`),
      ],
      ["ca.pem", await present(env.PIP_CERT, env.SSL_CERT_FILE, "/etc/ssl/certs/ca-certificates.crt")],
    );
  }
  return files.filter((entry): entry is [string, string] => entry[1] !== undefined);
}

/** Everything that an image is made of, sorted. The host's settings (sources, pip) are not: they say where from. */
async function inputs(kind: ImageKind): Promise<string[]> {
  const image = join(repository, "lab", "images");
  const entries = await readdir(join(image, kind), { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  files.push(join(image, "write-ext4"));
  if (kind === "machine") {
    files.push(join(repository, "app", "requirements.txt"), join(repository, "host", "build-env"));
  }
  return files.sort();
}

async function packageList(file: string): Promise<string[]> {
  const text = await readFile(file, "utf8");
  return text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
}
