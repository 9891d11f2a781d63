/**
 * What no single value can get wrong: how values fit together. Every check takes what is sound of the stack file and passes
 * over what is not (the schema has named that), so that all mistakes come at once.
 */
import { expandAddressRange, maxExpandedAddresses } from "./addresses";
import { type Path, pathText } from "./keys";
import { isPlainPath } from "./leaves";
import { defaultPriorities, defaultStoragePath } from "./resolve";
import { isCommit, lockedPython, type MachineRole, type ParsedConfig } from "./schema";
import { checkAws, withAwsMachines } from "./validateAws";
import { checkHttps } from "./validateHttps";
import { checkMonitoring } from "./validateMonitoring";

/** A mistake between values. */
export interface Conflict {
  readonly path: Path;
  readonly message: string;
  readonly fix: string;
  /** What to show instead of the value, where that is a secret. */
  readonly secret?: string;
}

type DeepPartial<T> = T extends readonly (infer E)[]
  ? (DeepPartial<E> | undefined)[]
  : T extends object
    ? { [K in keyof T]?: DeepPartial<T[K]> | undefined }
    : T;

/** What is sound of a stack file. A value that is missing or refused is `undefined`. */
export type Draft = DeepPartial<ParsedConfig> & {
  readonly secrets: {
    readonly vrrpPassword: boolean;
    readonly vrrpPasswordText: string | undefined;
    readonly peerKey: boolean;
    readonly peerKeyText: string | undefined;
    readonly tlsCertificate: boolean;
    readonly tlsCertificateText: string | undefined;
    readonly tlsKey: boolean;
    readonly tlsKeyText: string | undefined;
    readonly apiKeys: boolean;
    readonly apiKeysText: string | undefined;
    readonly httpUsers: boolean;
    readonly httpUsersText: string | undefined;
    readonly receiverSecrets: boolean;
    readonly receiverSecretTexts: Readonly<Record<string, unknown>> | undefined;
    readonly monitoringPassword: boolean;
    readonly monitoringPasswordText: string | undefined;
    readonly sshPrivateKey: boolean;
  };
  /** Paths that the schema has refused: what is `undefined` for that reason is not missing. */
  readonly refused: ReadonlySet<string>;
  /** The time at which certificates must be valid. */
  readonly now: Date;
};

/** Takes one conflict. */
export type Report = (path: Path, message: string, fix: string, secret?: string) => void;

/** Finds every conflict. Pure; the order is that of the checks. */
export function findConflicts(draft: Draft): Conflict[] {
  const conflicts: Conflict[] = [];
  const report: Report = (path, message, fix, secret) =>
    conflicts.push({ path, message, fix, ...(secret === undefined ? {} : { secret }) });
  const complete = withAwsMachines(draft);
  checkPlatform(draft, report);
  checkSecrets(draft, report);
  checkVrrp(complete, report);
  checkLoadBalancer(complete, report);
  checkHttps(complete, report);
  checkService(complete, report);
  checkApp(complete, report);
  checkMachines(draft, report);
  checkStorage(draft, report);
  checkPorts(draft, report);
  checkHostKeys(draft, report);
  checkVerification(draft, report);
  checkMonitoring(complete, report);
  return conflicts;
}

// --- who is there ----------------------------------------------------------------------------------------------------

function checkPlatform(draft: Draft, report: Report): void {
  const machineKeys = ["directors", "realServers", "storage"] as const;
  if (draft.platform === "aws") {
    if (draft.aws === undefined) {
      report(["aws"], "is missing, and the platform is aws", "write a section aws with its region");
    }
    for (const key of machineKeys) {
      if (draft[key] !== undefined) {
        report(
          [key],
          "is given, but the platform aws makes its machines itself",
          "remove it, or set platform to hosts",
        );
      }
    }
    checkAws(draft, report);
    return;
  }
  if (draft.platform !== "hosts") return;

  if (draft.aws !== undefined) {
    report(["aws"], "is given, but the platform is hosts", "remove it, or set platform to aws");
  }
  if (draft.directors === undefined) {
    report(["directors"], "is missing", "list the two directors, each with name, address and hostKey");
  } else if (draft.directors.length !== 2) {
    report(
      ["directors"],
      `has ${draft.directors.length} ${draft.directors.length === 1 ? "entry" : "entries"}, and it takes a pair`,
      "list exactly two directors",
    );
  }
  if (draft.realServers === undefined) {
    report(["realServers"], "is missing", "list the real servers, each with name, address and hostKey");
  } else if (draft.realServers.length === 0) {
    report(["realServers"], "is empty: nobody would answer", "list at least one real server");
  }
  if (draft.storage === undefined) {
    report(
      ["storage"],
      "is missing",
      "name a storage machine (name, address, hostKey) or an export that is there",
    );
  }
}

interface FoundMachine {
  readonly path: Path;
  readonly role: MachineRole;
  readonly what: string;
  readonly name: string | undefined;
  readonly address: string | undefined;
  readonly hostKey: string | undefined;
  readonly sshPort: number | undefined;
}

/** Every machine that the file mentions, as far as it can be read. */
function machinesIn(draft: Draft): FoundMachine[] {
  const machines: FoundMachine[] = [];
  type Raw = { name?: string | undefined; address?: string | undefined; hostKey?: string | undefined } & {
    ssh?: { port?: number | undefined } | undefined;
  };
  const add = (path: Path, role: FoundMachine["role"], raw: Raw | undefined) => {
    if (raw === undefined) return;
    const { name, address, hostKey } = raw;
    const what = name === undefined ? pathText(path) : `${name} (${pathText(path)})`;
    machines.push({ path, role, what, name, address, hostKey, sshPort: raw.ssh?.port ?? draft.ssh?.port });
  };
  for (const [index, raw] of (draft.directors ?? []).entries()) add(["directors", index], "director", raw);
  for (const [index, raw] of (draft.realServers ?? []).entries())
    add(["realServers", index], "realServer", raw);
  if (draft.storage?.export === undefined) add(["storage"], "storage", draft.storage);
  add(["verification", "client"], "client", draft.verification?.client);
  if (draft.monitoring?.enabled !== false) add(["monitoring"], "monitor", draft.monitoring);
  return machines;
}

function checkMachines(draft: Draft, report: Report): void {
  const names = new Map<string, FoundMachine>();
  const addresses = new Map<string, FoundMachine>();
  for (const machine of machinesIn(draft)) {
    const { path, name, address } = machine;
    if (name !== undefined) {
      const first = names.get(name);
      if (first === undefined) names.set(name, machine);
      else
        report(
          [...path, "name"],
          `is the name of ${first.what} as well`,
          "give every machine a name of its own",
        );
    }
    if (address === undefined) continue;
    if (address === draft.vip) {
      report(
        [...path, "address"],
        "is the VIP, which belongs to no machine",
        "write the machine's own address, or move the VIP",
      );
    }
    const first = addresses.get(address);
    if (first === undefined) addresses.set(address, machine);
    else {
      report(
        [...path, "address"],
        `is the address of ${first.what} as well`,
        "give every machine its own address; one machine has one role",
      );
    }
  }

  const jumpHost = draft.ssh?.jumpHost?.address;
  if (jumpHost === undefined) return;
  const path = ["ssh", "jumpHost", "address"];
  const machine = addresses.get(jumpHost);
  if (jumpHost === draft.vip) {
    report(
      path,
      "is the VIP: which machine would answer there changes",
      "jump through a machine that is not part of the cluster",
    );
  } else if (machine !== undefined) {
    report(
      path,
      `is ${machine.what}: while that one is down, no machine could be reached`,
      "jump through a machine that is not part of the cluster",
    );
  }
}

function checkHostKeys(draft: Draft, report: Report): void {
  if (draft.platform === "aws" || draft.ssh?.knownHostsFile !== undefined) return;
  if (draft.refused.has("ssh.knownHostsFile")) return;
  const fix =
    "write the public key from the machine's /etc/ssh/ssh_host_ed25519_key.pub, or set ssh.knownHostsFile to a file that has it";
  for (const { path, what, hostKey, name, address, role } of machinesIn(draft)) {
    // A section that is only half there is refused for that already.
    if ((role === "storage" || role === "monitor") && (name === undefined || address === undefined)) continue;
    if (hostKey === undefined)
      report([...path, "hostKey"], `is missing: nothing would tell ${what} from an impostor`, fix);
  }
  const jumpHost = draft.ssh?.jumpHost;
  if (jumpHost !== undefined && jumpHost.hostKey === undefined) {
    report(
      ["ssh", "jumpHost", "hostKey"],
      "is missing: nothing would tell the jump host from an impostor",
      fix,
    );
  }
}

function checkStorage(draft: Draft, report: Report): void {
  const { storage } = draft;
  if (storage === undefined || draft.platform === "aws") return;
  if (storage.export !== undefined) {
    for (const key of ["name", "address", "hostKey", "ssh", "path"] as const) {
      if (storage[key] !== undefined) {
        report(
          ["storage", key],
          "is given together with an export, which is served by a machine that is not configured here",
          "keep either export or the keys of a machine",
        );
      }
    }
    if (draft.vip !== undefined && storage.export.startsWith(`${draft.vip}:`)) {
      report(
        ["storage", "export"],
        "is on the VIP, where only the service answers",
        "write the storage machine's own address",
      );
    }
    return;
  }
  for (const key of ["name", "address"] as const) {
    if (storage[key] === undefined && !draft.refused.has("storage.export")) {
      report(
        ["storage", key],
        "is missing",
        "name a storage machine (name and address), or give an export that is there",
      );
    }
  }
  const path = storage.path ?? defaultStoragePath;
  const taken = [
    "/etc",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/boot",
    "/dev",
    "/proc",
    "/sys",
    "/run",
    "/root",
    "/tmp",
  ];
  const over = taken.find((prefix) => path.startsWith(`${prefix}/`));
  if (over !== undefined) {
    report(
      ["storage", "path"],
      `lies in ${over}, which belongs to the system`,
      `write a path such as ${defaultStoragePath}`,
    );
  }
}

// --- ports -----------------------------------------------------------------------------------------------------------

function checkPorts(draft: Draft, report: Report): void {
  const { port } = draft;
  if (port === undefined) return;
  const clash = machinesIn(draft).find(
    ({ role, sshPort }) => (role === "director" || role === "realServer") && sshPort === port,
  );
  if (clash !== undefined) {
    report(
      ["port"],
      `is the port of SSH on ${clash.what}`,
      "give the service a port of its own, such as 7860",
    );
  }
  const taken: Readonly<Record<number, string>> = {
    111: "of rpcbind",
    2049: "of NFS",
    7861: "on which the directors give out turns",
  };
  const owner = taken[port];
  if (owner !== undefined) {
    report(["port"], `is the port ${owner}`, "give the service a port of its own, such as 7860");
  }
  for (const { path, role, sshPort } of machinesIn(draft)) {
    if (role === "storage" && sshPort === 2049) {
      const ownPort = draft.storage?.ssh?.port !== undefined;
      report(
        ownPort ? [...path, "ssh", "port"] : ["ssh", "port"],
        "is the port of NFS on the storage machine",
        "let SSH listen on another port there",
      );
    }
  }
}

// --- load balancer ---------------------------------------------------------------------------------------------------

function checkLoadBalancer(draft: Draft, report: Report): void {
  const balancer = draft.loadBalancer;
  if (balancer === undefined) return;
  const { scheduler, persistence, forwarding, sorryServer, quorum, check } = balancer;

  if (balancer.agentWeights === true) {
    const at = ["loadBalancer", "agentWeights"];
    if (scheduler !== undefined && scheduler !== "wlc" && scheduler !== "wrr") {
      report(
        at,
        `does nothing for clients with the scheduler ${scheduler}, and makes its table flap`,
        "use the scheduler wlc or wrr, or leave agentWeights out",
      );
    }
    if (quorum !== undefined && quorum > 1) {
      report(
        at,
        `makes the sum of weights say nothing about health, which quorum: ${quorum} asks for`,
        "leave quorum out, or agentWeights",
      );
    }
    if (check?.kind !== undefined && check.kind !== "poller") {
      report(
        at,
        `needs the poller to learn the queues, and check.kind is ${check.kind}`,
        "use check.kind: poller, or leave agentWeights out",
      );
    }
  }

  // The poller, too: only with it does a real server that drains keep the sessions that it has.
  const passedOn =
    draft.service?.peers !== false &&
    draft.secrets.peerKey &&
    (check === undefined || check.kind === "poller");
  if (
    persistence === 0 &&
    scheduler !== undefined &&
    scheduler !== "mh" &&
    scheduler !== "sh" &&
    !passedOn &&
    !draft.refused.has("service.peers")
  ) {
    report(
      ["loadBalancer", "scheduler"],
      "spreads the connections of one visitor over all real servers, while a session lives on one of them: with several real servers the page fails (session not found)",
      "let the real servers pass sessions on (service.peers with check.kind: poller, and run: pulumi config set --secret peerKey), set loadBalancer.persistence to 300, or use the scheduler mh",
    );
  }

  if (sorryServer !== undefined) {
    const at = ["loadBalancer", "sorryServer"];
    const { address, port = draft.port } = sorryServer;
    if (address !== undefined && address === draft.vip) {
      report(
        [...at, "address"],
        "is the VIP: traffic would go round in a circle",
        "write the sorry server's own address",
      );
    }
    const member = machinesIn(draft).find(
      (machine) => machine.address !== undefined && machine.address === address,
    );
    if (member?.role === "realServer" && port === draft.port) {
      report(
        [...at, "address"],
        `is ${member.what}, which is in the pool already`,
        "name a server that is not in the pool, or leave sorryServer out",
      );
    } else if (member?.role === "director") {
      report(
        [...at, "address"],
        `is ${member.what}, which holds the VIP itself`,
        "name a server that is not a director",
      );
    }
    if (
      (forwarding === "DR" || forwarding === "TUN") &&
      port !== undefined &&
      port !== draft.port &&
      draft.port !== undefined
    ) {
      report(
        [...at, "port"],
        `differs from port, and ${forwarding} cannot rewrite a port`,
        "leave it out, or use forwarding NAT",
      );
    }
  }

  const weights = draft.realServers?.map((server) => server?.weight);
  if (quorum !== undefined && weights !== undefined && weights.length > 0 && !weights.includes(undefined)) {
    const sum = weights.reduce<number>((total, weight) => total + (weight ?? 0), 0);
    if (quorum > sum) {
      report(
        ["loadBalancer", "quorum"],
        `can never be reached: the weights of all real servers sum up to ${sum}`,
        `write a number from 1 to ${sum}`,
      );
    }
  }
  checkTimes(balancer.check, report);
}

function checkTimes(check: NonNullable<Draft["loadBalancer"]>["check"], report: Report): void {
  const at = ["loadBalancer", "check"];
  if (check?.kind === "poller") {
    const { interval, timeout, failures } = check;
    if (interval === undefined || timeout === undefined || failures === undefined) return;
    if (timeout > interval * failures) {
      report(
        [...at, "timeout"],
        `is longer than ${failures} x ${interval} s, in which a real server is to be found dead`,
        `write at most ${interval * failures}, or raise interval or failures`,
      );
    }
  } else if (check?.kind === "misc") {
    if (check.timeout !== undefined && check.delayLoop !== undefined && check.timeout > check.delayLoop) {
      report(
        [...at, "timeout"],
        `is longer than delayLoop (${check.delayLoop} s)`,
        "a check must end before the next one starts: lower it",
      );
    }
  } else if (check?.kind === "tcp" || check?.kind === "http") {
    if (
      check.connectTimeout !== undefined &&
      check.delayLoop !== undefined &&
      check.connectTimeout > check.delayLoop
    ) {
      report(
        [...at, "connectTimeout"],
        `is longer than delayLoop (${check.delayLoop} s)`,
        "a check must end before the next one starts: lower it",
      );
    }
  }
}

// --- VRRP ------------------------------------------------------------------------------------------------------------

function checkVrrp(draft: Draft, report: Report): void {
  const { vrrp, directors } = draft;
  const priorities = directors
    ?.slice(0, 2)
    .map((director, index) => director && (director.priority ?? defaultPriorities[index]));
  if (priorities?.[0] !== undefined && priorities[0] === priorities[1]) {
    report(
      ["directors", 1, "priority"],
      `comes to ${priorities[1]}, the same as the other director's`,
      "give the directors different priorities, such as 100 and 90",
    );
  }

  if (vrrp === undefined) return;
  const { version, advertInterval, authentication, label } = vrrp;
  if (version === 2 && advertInterval !== undefined && !Number.isInteger(advertInterval)) {
    report(
      ["vrrp", "advertInterval"],
      "is not a whole second, and VRRP version 2 knows no other",
      "write 1, or use version 3",
    );
  }
  if (version === 3 && advertInterval !== undefined && advertInterval > 40) {
    report(
      ["vrrp", "advertInterval"],
      "is more than VRRP version 3 can say (40 s)",
      "write 40 or less: 0.1 is usual",
    );
  }
  if (version === 3 && authentication === "PASS") {
    report(
      ["vrrp", "authentication"],
      "is PASS, which VRRP version 3 does not have",
      "set authentication to none, or version to 2 (and advertInterval to 1)",
    );
  }
  if (label !== undefined) {
    directors?.forEach((director, index) => {
      const device = director?.interface ?? draft.interface ?? "eth0";
      if (`${device}:${label}`.length <= 15) return;
      report(
        ["vrrp", "label"],
        `gives "${device}:${label}" on ${director?.name ?? `director ${index + 1}`}, longer than the kernel's 15 characters`,
        `write at most ${Math.max(1, 14 - device.length)} characters`,
      );
    });
  }
}

function checkSecrets(draft: Draft, report: Report): void {
  const { secrets, vrrp, ssh } = draft;
  const set = "run: pulumi config set --secret vrrpPassword (1 to 8 letters, digits or . _ - + = / , :)";
  if (vrrp?.authentication === "PASS" && !secrets.vrrpPassword) {
    report(["vrrpPassword"], "is not set, and vrrp.authentication is PASS", set);
  }
  if (secrets.vrrpPassword && vrrp?.authentication === "none") {
    report(
      ["vrrpPassword"],
      "is set, but vrrp.authentication is none",
      "run: pulumi config rm vrrpPassword, or set vrrp.authentication to PASS",
      "(a secret)",
    );
  }
  const password = secrets.vrrpPasswordText;
  if (password !== undefined && (password.length > 8 || password.length === 0)) {
    report(["vrrpPassword"], `has ${password.length} characters, and VRRP takes 1 to 8`, set, "(a secret)");
  } else if (password !== undefined && !/^[A-Za-z0-9._+=/,:-]+$/.test(password)) {
    report(
      ["vrrpPassword"],
      "has characters that keepalived.conf gives a meaning of their own",
      set,
      "(a secret)",
    );
  }
  const keys = secrets.peerKeyText?.split(",");
  if (
    keys !== undefined &&
    (keys.length > 2 || keys.some((key) => !/^[A-Za-z0-9._+/=-]{32,128}$/.test(key)))
  ) {
    report(
      ["peerKey"],
      "is not one key of 32 to 128 letters, digits or . _ + / = -, nor two with a comma between them",
      "run: openssl rand -hex 32 | pulumi config set --secret peerKey",
      "(a secret)",
    );
  }
  if (secrets.sshPrivateKey && ssh?.privateKeyFile !== undefined) {
    report(["ssh", "privateKeyFile"], "is given, and the secret sshPrivateKey too", "keep one of them");
  }
}

// --- service and verification ------------------------------------------------------------------------------------------

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

function checkService(draft: Draft, report: Report): void {
  const { service } = draft;
  if (service?.user === "root" || service?.user === "nobody") {
    report(
      ["service", "user"],
      `is ${service.user}, which other things on the machine use`,
      "name a user of its own, such as cosyvoice",
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

function checkApp(draft: Draft, report: Report): void {
  const { app } = draft;
  if (app === undefined) return;
  const { source, ref, model } = app;
  if (source !== undefined && ref !== undefined && isPlainPath(source) && !isCommit(ref)) {
    report(
      ["app", "ref"],
      "is the name of a commit, and app.source is a path: a checkout on each real server may have another one under it",
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
      `is on, and app/engine/cosyvoice.txt has no ${what}`,
      "name a lock file that has it in app.requirements (docs/engine.md says how to make one), or leave it out",
    );
  }

  if (model?.directory === undefined) return;
  if (model.checksums === undefined && !draft.refused.has("app.model.checksums")) {
    report(
      ["app", "model", "checksums"],
      "is missing, and the weights come from a directory: nobody states their hashes",
      "run sha256sum on the files where they come from, and name the file with its output",
    );
  }
  for (const key of ["revision", "endpoint"] as const) {
    if (model[key] === undefined) continue;
    report(
      ["app", "model", key],
      "is given, and the weights come from app.model.directory and no hub",
      "remove it, or app.model.directory",
    );
  }
}

function checkVerification(draft: Draft, report: Report): void {
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
    for (const address of expansion.addresses) taken.set(address, "listed before");
  });
  if (total > maxExpandedAddresses) {
    report(
      ["verification", "sourceAddresses"],
      `names ${total} addresses, more than ${maxExpandedAddresses}`,
      "ten per real server are enough",
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
