/** How the speech service, its engine, and the question that a deployment ends with fit the rest. */
import { expandAddressRange, maxExpandedAddresses } from "./addresses";
import { isPlainPath } from "./leaves";
import { isCommit, lockedPython } from "./schema";
import type { Draft, Report } from "./validate";
import { machinesIn } from "./validateMachines";

/** Variables that other keys set; a second place for one value is a contradiction in waiting. */
const ownVariables: Readonly<Record<string, string>> = {
  COSYVOICE_NODE: "it is the machine's name",
  COSYVOICE_ENGINE: "set service.engine",
  COSYVOICE_OUTPUTS: "the share is always mounted at the same place",
  COSYVOICE_QUEUE_LENGTH: "set service.queueLength",
  COSYVOICE_TIME_LIMIT: "set service.timeLimit",
  COSYVOICE_OUTPUTS_DAYS: "set service.outputs.days",
  COSYVOICE_OUTPUTS_QUOTA: "set service.outputs.quota",
  COSYVOICE_SHARED_HISTORY: "set service.outputs.shared",
  COSYVOICE_PEERS: "set service.peers",
  COSYVOICE_DIRECTORS: "they are the machines of `directors`",
  COSYVOICE_PEER_KEY_FILE: "set the secret peerKey",
  COSYVOICE_SOURCE: "set app.source and app.ref",
  COSYVOICE_MODEL: "set app.model",
  COSYVOICE_PYTHON: "set app.environment",
  COSYVOICE_FP16: "set app.fp16",
  COSYVOICE_TRT: "set app.tensorrt",
  COSYVOICE_VLLM: "set app.vllm",
  COSYVOICE_EDITION: "it names what is installed",
  COSYVOICE_START_LIMIT: "it follows from what is to be loaded",
  GRADIO_TEMP_DIR: "the service may write nowhere else",
  PATH: "run.sh activates the service's own environment",
  LD_PRELOAD: "the service loads its own libraries only",
  NOTIFY_SOCKET: "systemd sets it",
};

export function checkService(draft: Draft, report: Report): void {
  const { service } = draft;
  if (service?.user === "root" || service?.user === "nobody") {
    report(
      ["service", "user"],
      `is ${service.user}, which other programs on the machine use`,
      "name a user that only the service uses, such as cosyvoice",
    );
  }
  const servers = draft.realServers?.length;
  const out = service?.maxUnavailable;
  if (servers !== undefined && servers > 1 && out !== undefined && out >= servers) {
    report(
      ["service", "maxUnavailable"],
      `would let a deployment take all ${servers} real servers out of the pool at once`,
      `write at most ${servers - 1}`,
    );
  }
  for (const name of Object.keys(service?.environment ?? {})) {
    const reason = Object.hasOwn(ownVariables, name) ? ownVariables[name] : undefined;
    if (reason === undefined) continue;
    report(["service", "environment", name], "is set by this program", `remove it: ${reason}`);
  }
}

export function checkApp(draft: Draft, report: Report): void {
  const { app } = draft;
  if (app === undefined) return;
  const { source, ref, model } = app;
  if (source !== undefined && ref !== undefined && isPlainPath(source) && !isCommit(ref)) {
    report(
      ["app", "ref"],
      "is a branch or a tag, but app.source is a path: it may stand for a different commit on each real server",
      "write the commit's 40 hexadecimal digits: git rev-parse HEAD in the checkout prints them",
    );
  }

  const own = app.requirements !== undefined || draft.refused.has("app.requirements");
  if (app.python !== undefined && app.python !== lockedPython && !own) {
    report(
      ["app", "python"],
      `is not ${lockedPython}, which app/engine/cosyvoice.txt was made for`,
      `leave it out, or name a lock file for Python ${app.python} in app.requirements`,
    );
  }
  for (const [key, what] of [
    ["tensorrt", "TensorRT, whose libraries are not on the public index"],
    ["vllm", "vLLM, which needs another version of PyTorch"],
  ] as const) {
    if (app[key] !== true || own) continue;
    report(
      ["app", key],
      `is true, but app/engine/cosyvoice.txt has no ${what}`,
      "name a lock file that has it in app.requirements (docs/engine.md says how to make one), or leave it out",
    );
  }

  if (model?.directory === undefined) return;
  if (model.checksums === undefined && !draft.refused.has("app.model.checksums")) {
    report(
      ["app", "model", "checksums"],
      "is missing, but the weights come from a directory, for which no hub states hashes",
      "run sha256sum on the files where they come from, and name the file with its output",
    );
  }
  for (const key of ["revision", "endpoint"] as const) {
    if (model[key] === undefined) continue;
    report(
      ["app", "model", key],
      "is given, but the weights come from app.model.directory and not from a hub",
      "remove it, or app.model.directory",
    );
  }
}

export function checkVerification(draft: Draft, report: Report): void {
  const { verification } = draft;
  const entries = verification?.sourceAddresses ?? [];
  const taken = new Map<string, string>();
  if (draft.vip !== undefined) taken.set(draft.vip, "the VIP");
  for (const { address, what, role } of machinesIn(draft)) {
    // The client may well ask from its own address.
    if (address !== undefined && role !== "client") taken.set(address, `the address of ${what}`);
  }
  let total = 0;
  entries.forEach((entry, index) => {
    if (entry === undefined) return;
    const path = ["verification", "sourceAddresses", index];
    const expansion = expandAddressRange(entry);
    if (!expansion.ok) {
      report(path, expansion.reason, 'write an address or a range such as "192.168.1.200-192.168.1.249"');
      return;
    }
    total += expansion.addresses.length;
    const clash = expansion.addresses.find((address) => taken.has(address));
    if (clash !== undefined) {
      report(
        path,
        `contains ${clash}, which is ${taken.get(clash)}`,
        "list addresses that only the client holds, each once",
      );
    }
    for (const address of expansion.addresses) taken.set(address, "listed already");
  });
  if (total > maxExpandedAddresses) {
    report(
      ["verification", "sourceAddresses"],
      `names ${total} addresses, more than ${maxExpandedAddresses}`,
      "list fewer: ten per real server are enough",
    );
  }
  if (entries.length > 0 && verification?.client === undefined && !draft.refused.has("verification.client")) {
    report(
      ["verification", "sourceAddresses"],
      "is given, but there is no client to ask from them",
      "add verification.client, or remove it",
    );
  }
}
