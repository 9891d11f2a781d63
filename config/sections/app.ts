/** The section `app`: what is installed for the engine cosyvoice. */
import type * as z from "zod";
import { type About, choice, flag, isPlainPath, localFile, section, text, whole } from "../leaves";

/** The commit of upstream that app/engine/cosyvoice.in and the app's adapter were made for. */
export const pinnedCommit = "ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40";

/** The version of Python that app/engine/cosyvoice.txt was made for. */
export const lockedPython = "3.11";

/** Whether a text is a commit and not the name of one, which may come to mean another. */
export function isCommit(ref: string): boolean {
  return /^[0-9a-f]{40}$/.test(ref);
}

const remoteDirectory = "an absolute path on the real servers, made of letters, digits and . _ - + = , @";

function directoryOnRealServers(words: About) {
  return text(isPlainPath, remoteDirectory, words);
}

/** A git URL without a password in it, or a path. scp's form (git@host:path) is left out: it looks like a path. */
function isSource(value: string): boolean {
  return (
    isPlainPath(value) ||
    /^(https|ssh):\/\/([a-z_][a-z0-9_-]*@)?[A-Za-z0-9.-]+(:[0-9]{1,5})?(\/[A-Za-z0-9_@+=,.~-]+)+\/?$/.test(
      value,
    )
  );
}

function isBranchOrTag(value: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_./-]{0,199}$/.test(value) && !/\.\.|\/\/|[./]$/.test(value);
}

const modelSchema = section(
  {
    hub: choice(["huggingface", "modelscope"], {
      text: "The hub from which every real server downloads the weights.",
    }).default("huggingface"),
    id: text(
      (value) => /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}\/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/.test(value),
      "the name of a model as OWNER/NAME",
      { text: "Name of the model on the hub." },
    ).default("FunAudioLLM/Fun-CosyVoice3-0.5B-2512"),
    revision: text(isBranchOrTag, "a branch, a tag or a commit of the hub", {
      text: "Revision of the model to download.",
      why: "A branch is looked up once: the weights on a real server stay as they are until another key of this section changes. With `checksums`, the files must have those hashes, whichever revision you name.",
      derived: "main at huggingface, master at modelscope",
    }).optional(),
    endpoint: text(
      (value) => /^https?:\/\/[A-Za-z0-9.-]+(:[0-9]{1,5})?(\/[A-Za-z0-9_.~-]+)*$/.test(value),
      "an address such as https://hub.example.org",
      {
        text: "A mirror that answers as the hub does. Without `checksums`, the hashes that it states are trusted.",
        derived: "the hub's own",
      },
    ).optional(),
    directory: directoryOnRealServers({
      text: "A directory on the real servers that holds the weights, for real servers that cannot reach a hub. It needs `checksums`. The weights are copied from it once; after that it is not used.",
      derived: "none: the weights are downloaded",
    }).optional(),
    checksums: localFile({
      text: "A file with the SHA-256 of every file of the model, as sha256sum writes it. Only the files that it lists are fetched, and a file with another hash is refused.",
      why: "It pins the weights. Without it, the real servers take what the hub has and check it only against the hashes that the hub states. Every real server keeps such a list beside its weights: [engine.md](engine.md) says where.",
      derived: "none: a preview says that the weights are not pinned",
      required: "with `directory`",
    }).optional(),
  },
  { text: "The weights. Their hashes are always checked." },
);

export const appSchema = section(
  {
    source: text(isSource, "a git URL (https://... or ssh://..., without a password) or an absolute path", {
      text: "Where CosyVoice's source comes from: the URL of a git repository, or the path of a checkout (with its submodules) on every real server.",
    }).default("https://github.com/FunAudioLLM/CosyVoice.git"),
    ref: text(
      (value) => isCommit(value) || isBranchOrTag(value),
      "a commit of 40 hexadecimal digits, a branch or a tag",
      {
        text: "The commit, branch or tag that runs. This computer looks up a branch or a tag once for each preview and deployment, so that all real servers get the same commit and a preview shows it.",
        why: "The default is the commit that the service's adapter and the locked packages were tested with.",
      },
    ).default(pinnedCommit),
    requirements: localFile({
      text: "A lock file of your own for the engine's environment, with hashes, in the format of `app/engine/cosyvoice.txt`.",
      why: "TensorRT and vLLM need packages that the default lock file does not have: see [engine.md](engine.md).",
      derived: "app/engine/cosyvoice.txt",
    }).optional(),
    python: text((value) => /^3\.1[0-3]$/.test(value), "3.10, 3.11, 3.12 or 3.13, in quotes", {
      text: "Version of Python that the lock file was made for.",
    }).default(lockedPython),
    environment: choice(["auto", "venv", "conda", "uv"], {
      text: "Where that Python comes from. venv: the machine's own Python. conda: the machine's conda, mamba or micromamba. uv: the machine's uv. auto: the first of these that works. The packages come from the lock file in every case.",
    }).default("auto"),
    wheels: directoryOnRealServers({
      text: "A directory on the real servers with all packages of both environments (the service's and the engine's), for real servers that cannot reach a package index. `scripts/wheelhouse` fills one.",
      derived: "none: packages come from the index that pip on the real servers is configured for",
    }).optional(),
    model: modelSchema.prefault({}),
    gpuMemory: whole(1, 1024, {
      text: "Memory that the GPU must have at least. It is checked before anything is changed.",
      unit: "GiB",
    }).default(8),
    fp16: flag({
      text: "Whether the model runs in half precision. Measure first: on an H200 it was slower and took as much GPU memory.",
    }).default(false),
    tensorrt: flag({
      text: "Whether part of the model runs as a TensorRT engine. Every real server builds it for its own GPU at its first start, which takes minutes.",
    }).default(false),
    vllm: flag({ text: "Whether vLLM runs the language model." }).default(false),
  },
  {
    text: "The engine of `service.engine: cosyvoice`: CosyVoice's source, its Python environment and its weights. With `service.engine: cpu`, only `wheels` is used. How the engine is installed: [engine.md](engine.md).",
  },
);

/** Options of the engine cosyvoice. */
export interface AppConfig extends Omit<z.output<typeof appSchema>, "model"> {
  readonly model: ModelConfig;
}

/** Where the weights come from: a hub, or a directory on the real servers. */
export type ModelConfig =
  | {
      readonly kind: "hub";
      readonly hub: "huggingface" | "modelscope";
      readonly id: string;
      readonly revision: string;
      /** `undefined`: the hub's own. */
      readonly endpoint: string | undefined;
      /** As written in the stack file, `~` not expanded. */
      readonly checksums: string | undefined;
    }
  | {
      readonly kind: "directory";
      readonly directory: string;
      readonly id: string;
      readonly checksums: string;
    };
