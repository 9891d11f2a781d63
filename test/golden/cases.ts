/** The texts that are kept under test/golden/texts: a folder for every configuration, a file for every text of it. */
import {
  directorSysctls,
  kernelModules,
  realServerSysctls,
  renderAllowancesConfig,
  renderAllowancesUnit,
  renderApiKeys,
  renderDirectors,
  renderDirectorTurn,
  renderExports,
  renderFirewall,
  renderFirewallUnit,
  renderFrontDoorConfig,
  renderFrontDoorUnit,
  renderGuardConfig,
  renderGuardUnit,
  renderHealthConfig,
  renderHealthUnit,
  renderHttpUsers,
  renderKeepalivedAuth,
  renderKeepalivedConfig,
  renderKeepalivedDropIn,
  renderKnownHosts,
  renderMetadataRules,
  renderNfsServerConfig,
  renderNoStandby,
  renderOutputsKeeper,
  renderOutputsMount,
  renderPacketRules,
  renderPacketRulesUnit,
  renderPeerKey,
  renderPeers,
  renderRealServerTurn,
  renderRunScript,
  renderServiceEnvironment,
  renderServiceUnit,
  renderSshConfig,
  renderTurnsConfig,
  renderTurnsUnit,
  renderVipMoverConfig,
  renderVipMoverUnit,
  renderVipUnit,
  type SshEntry,
} from "../../render";
import { parsedAws, rawInternet, rawTwoZones } from "../aws/fixture";
import {
  classicArticle,
  cluster,
  madeUpHostKey,
  madeUpPeerKey,
  type RawOverrides,
  rawCluster,
} from "../unit/config-fixture";
import { type GoldenCase, monitoringCases } from "./monitoringCases";

const bothDirectors = (overrides: RawOverrides) => ({
  "keepalived-director-1.conf": renderKeepalivedConfig(cluster(overrides), "director-1"),
  "keepalived-director-2.conf": renderKeepalivedConfig(cluster(overrides), "director-2"),
});

const firstDirector = (overrides: RawOverrides) => ({
  "keepalived-director-1.conf": renderKeepalivedConfig(cluster(overrides), "director-1"),
});

/** What is not a text but comes out of a renderer all the same. */
function kernel(overrides: RawOverrides) {
  const config = cluster(overrides);
  const settings = {
    director: { modules: kernelModules(config, "director"), sysctls: directorSysctls(config) },
    realServer: { modules: kernelModules(config, "realServer"), sysctls: realServerSysctls(config) },
  };
  return { "kernel.json": `${JSON.stringify(settings, null, 2)}\n` };
}

const sshEntries: readonly SshEntry[] = [
  { name: "jump-host", address: "127.0.0.1", user: "root", port: 2222, hostKey: madeUpHostKey("jump-host") },
  {
    name: "director-1",
    address: "192.168.1.11",
    user: "root",
    port: 22,
    hostKey: madeUpHostKey("director-1"),
    through: "jump-host",
  },
  {
    name: "rs-1",
    address: "192.168.1.101",
    user: "ops",
    port: 2022,
    hostKey: undefined,
    through: "jump-host",
  },
];

/** The commands that stand around a change, one a line. */
function turnCommands(overrides: RawOverrides): string {
  const config = cluster(overrides);
  const realServer = renderRealServerTurn(config, "rs-3", "release 0123456789abcdef");
  return `${realServer}\n${renderDirectorTurn(config, "director-1", "the director's settings")}\n`;
}

const plain = cluster();
const aws = parsedAws();
const agentWeights = {
  loadBalancer: { scheduler: "wlc", persistence: 300, agentWeights: true, rampUp: 12.5 },
  realServers: rawCluster().realServers.map((server, index) => ({ ...server, weight: index + 1 })),
};
const byWeight = {
  port: 443,
  loadBalancer: { dropUnderPressure: true, forwarding: "TUN", check: { kind: "tcp" } },
  service: { maxUnavailable: 2, drainLimit: 60.5 },
};
const sorry = { loadBalancer: { quorum: 2, sorryServer: { address: "192.168.1.30" } } };
const multicast = {
  loadBalancer: { scheduler: "sh", persistence: 60 },
  vrrp: { unicast: false, preempt: true, advertInterval: 0.25, garp: { refresh: 0 }, label: "voice" },
  realServers: rawCluster().realServers.map((server, index) => ({ ...server, weight: index + 1 })),
};
/** HTTPS beside the plain port, with all that follows from the defaults. */
const https = {
  https: { enabled: true, serverName: "speech.example.org" },
  tlsCertificate: true,
  tlsKey: true,
};
/** HTTPS alone, on another port, for people and programs that are known; and a packet filter. */
const httpsOnly = {
  ...https,
  https: {
    ...https.https,
    port: 8443,
    plainPort: "closed",
    requestsPerSecond: 0,
    connections: 20,
    uploadLimit: 3,
  },
  apiKeys: true,
  httpUsers: true,
  loadBalancer: { check: { kind: "http" } },
  firewall: { enabled: true, admins: ["10.0.0.0/8", "192.168.1.1"], openPorts: [9100] },
};
const httpsNat = {
  ...https,
  https: { ...https.https, redirect: false },
  loadBalancer: { forwarding: "NAT", check: { kind: "tcp" } },
  firewall: { enabled: true },
};
const httpsMisc = {
  ...https,
  loadBalancer: { forwarding: "TUN", check: { kind: "misc", script: "/usr/bin/true" } },
};
const peers = { port: 8080, peerKey: madeUpPeerKey, loadBalancer: { scheduler: "rr" } };
const tun = { loadBalancer: { forwarding: "TUN" } };
const nat = { loadBalancer: { forwarding: "NAT" } };
const gpu = {
  port: 443,
  service: {
    engine: "cosyvoice",
    enableQueue: false,
    timeLimit: 30.5,
    outputs: { days: 30, quota: 500, shared: true },
    environment: {
      PLAIN: "a-b_c/d:e,f@g+h",
      SPACES: " two  words ",
      QUOTES: `it's "so"`,
      DOLLAR: "$HOME $(id) `id`",
      BACKSLASH: "C:\\dir\\",
      HASH: "# no comment; none",
      EMPTY: "",
      MANDARIN: "你好",
    },
  },
};

const built = {
  service: { engine: "cosyvoice" },
  app: { requirements: "made-up.txt", tensorrt: true, fp16: true, model: { id: "made-up/Model-1" } },
};
const engine = "feedfeedfeedfeed";

/** Every case, computed when this module is read. */
export const goldenCases: readonly GoldenCase[] = [
  {
    name: "default",
    texts: {
      ...bothDirectors({}),
      ...kernel({}),
      "keepalived.service.d.conf": renderKeepalivedDropIn(plain),
      "health.json": renderHealthConfig(plain, "director-1"),
      "cosyvoice-health.service": renderHealthUnit(),
      "rules.nft": renderPacketRules(plain),
      "cosyvoice-rules.service": renderPacketRulesUnit(),
      "turns.json": renderTurnsConfig(plain, "director-2"),
      "cosyvoice-turns.service": renderTurnsUnit(plain),
      "turn.sh": turnCommands({}),
      "vrrp-guard.json": renderGuardConfig(plain, "director-1"),
      "cosyvoice-vrrp-guard.service": renderGuardUnit(),
      "cosyvoice-vip.service": renderVipUnit(plain),
      "run.sh": renderRunScript(plain),
      "cosyvoice.env": renderServiceEnvironment(plain, "rs-1"),
      "cosyvoice.service": renderServiceUnit(plain),
      "root-CosyVoice-outputs.mount": renderOutputsMount(plain),
      "cosyvoice-outputs.service": renderOutputsKeeper(),
      exports: renderExports(plain),
      "nfs.conf": renderNfsServerConfig(),
    },
  },
  {
    name: "classic-article",
    texts: {
      ...bothDirectors(classicArticle),
      ...kernel(classicArticle),
      "keepalived.service.d.conf": renderKeepalivedDropIn(cluster(classicArticle)),
      "cosyvoice-lvs-auth.conf": renderKeepalivedAuth("made-up1"),
      "no-standby.sh": `${renderNoStandby(cluster(classicArticle))}\n`,
      "vrrp-guard.json": renderGuardConfig(cluster(classicArticle), "director-2"),
    },
  },
  {
    name: "agent-weights",
    texts: {
      ...firstDirector(agentWeights),
      "health.json": renderHealthConfig(cluster(agentWeights), "director-1"),
      "vrrp-guard.json": renderGuardConfig(cluster(agentWeights), "director-1"),
    },
  },
  {
    name: "turns-by-weight",
    texts: {
      "turns.json": renderTurnsConfig(cluster(byWeight), "director-1"),
      "cosyvoice-turns.service": renderTurnsUnit(cluster(byWeight)),
      "turn.sh": turnCommands(byWeight),
      ...kernel(byWeight),
    },
  },
  {
    name: "peers",
    texts: {
      "cosyvoice.env": renderServiceEnvironment(cluster(peers), "rs-2"),
      directors: renderDirectors(cluster(peers)),
      "peers-rs-1.json": renderPeers(cluster(peers), "rs-1"),
      "peers-rs-3.json": renderPeers(cluster(peers), "rs-3"),
      "peers.key": renderPeerKey(`${madeUpPeerKey},its-made-up-predecessor-in-32-letters`),
    },
  },
  {
    name: "tun",
    texts: { ...firstDirector(tun), ...kernel(tun), "cosyvoice-vip.service": renderVipUnit(cluster(tun)) },
  },
  {
    name: "nat",
    texts: {
      ...firstDirector(nat),
      ...kernel(nat),
      "cosyvoice-vip.service": renderVipUnit(cluster(nat)),
      "rules.nft": renderPacketRules(cluster(nat)),
    },
  },
  {
    name: "https",
    texts: {
      ...firstDirector(https),
      "health.json": renderHealthConfig(cluster(https), "director-1"),
      "vrrp-guard.json": renderGuardConfig(cluster(https), "director-1"),
      "turns.json": renderTurnsConfig(cluster(https), "director-1"),
      "turn.sh": turnCommands(https),
      "rules.nft": renderPacketRules(cluster(https)),
      "nginx.conf": renderFrontDoorConfig(cluster(https), "rs-2"),
      "cosyvoice-front-door.service": renderFrontDoorUnit(),
    },
  },
  {
    name: "https-only",
    texts: {
      ...firstDirector(httpsOnly),
      "rules.nft": renderPacketRules(cluster(httpsOnly)),
      "nginx.conf": renderFrontDoorConfig(cluster(httpsOnly), "rs-1"),
      "api-keys.conf": renderApiKeys("a-made-up-key-for-nginx,another.made_up.key.for.nginx"),
      users: renderHttpUsers("made-up:$6$made-up$hash\nother:$6$made-up$hash"),
      "firewall-director-1.nft": renderFirewall(cluster(httpsOnly), "director-1"),
      "firewall-rs-1.nft": renderFirewall(cluster(httpsOnly), "rs-1"),
      "firewall-storage.nft": renderFirewall(cluster(httpsOnly), "storage"),
      "cosyvoice-firewall.service": renderFirewallUnit(),
    },
  },
  {
    name: "https-nat",
    texts: {
      ...firstDirector(httpsNat),
      "rules.nft": renderPacketRules(cluster(httpsNat)),
      "nginx.conf": renderFrontDoorConfig(cluster(httpsNat), "rs-1"),
      "firewall-director-1.nft": renderFirewall(cluster(httpsNat), "director-1"),
    },
  },
  {
    name: "https-misc",
    texts: {
      ...firstDirector(httpsMisc),
      "firewall-rs-1.nft": renderFirewall(cluster({ ...httpsMisc, firewall: { enabled: true } }), "rs-1"),
    },
  },
  {
    name: "plain-port-closed",
    texts: {
      "firewall-rs-1.nft": renderFirewall(
        cluster({ ...https, https: { ...https.https, plainPort: "closed" } }),
        "rs-1",
      ),
    },
  },
  {
    name: "check-http",
    texts: firstDirector({
      loadBalancer: { check: { kind: "http", path: "/readyz?from=lvs", connectTimeout: 1.5 } },
    }),
  },
  {
    name: "check-misc",
    // A program that every machine has: keepalived looks for it, and at who may write it.
    texts: firstDirector({
      loadBalancer: { check: { kind: "misc", script: "/usr/bin/true", delayLoop: 6.5 } },
    }),
  },
  {
    name: "sorry-server",
    texts: {
      ...firstDirector(sorry),
      "vrrp-guard.json": renderGuardConfig(cluster(sorry), "director-1"),
    },
  },
  {
    name: "sh-multicast",
    texts: {
      ...bothDirectors(multicast),
      "vrrp-guard.json": renderGuardConfig(cluster(multicast), "director-2"),
    },
  },
  {
    name: "gpu",
    texts: {
      "run.sh": renderRunScript(cluster(gpu)),
      "cosyvoice.env": renderServiceEnvironment(cluster(gpu), "rs-3", engine),
      "cosyvoice.service": renderServiceUnit(cluster(gpu), engine),
    },
  },
  {
    name: "gpu-built",
    texts: {
      "cosyvoice.env": renderServiceEnvironment(cluster(built), "rs-1", engine),
      "cosyvoice.service": renderServiceUnit(cluster(built), engine),
    },
  },
  {
    name: "export",
    texts: {
      "root-CosyVoice-outputs.mount": renderOutputsMount(
        cluster({
          storage: { export: "nas.example.org:/volume1/cosyvoice", mountOptions: "nfsvers=4.1,hard" },
        }),
      ),
    },
  },
  ...monitoringCases,
  {
    name: "aws",
    texts: {
      "keepalived-director-1.conf": renderKeepalivedConfig(aws, "director-1"),
      "keepalived-director-2.conf": renderKeepalivedConfig(aws, "director-2"),
      "vip-mover-director-1.json": renderVipMoverConfig(aws, "director-1", "made-up"),
      "cosyvoice-vip-mover.service": renderVipMoverUnit(),
      "allowances.json": renderAllowancesConfig(aws, "director-1"),
      "cosyvoice-allowances.service": renderAllowancesUnit(),
      "director-rules.nft": renderPacketRules(aws),
      "real-server-rules.nft": renderMetadataRules(),
      "root-CosyVoice-outputs.mount": renderOutputsMount(aws, {
        fileSystemId: "fs-0123456789abcdef0",
        accessPointId: "fsap-0123456789abcdef0",
      }),
    },
  },
  {
    name: "aws-two-zones",
    texts: {
      "keepalived-director-1.conf": renderKeepalivedConfig(parsedAws(rawTwoZones()), "director-1"),
      "keepalived-director-2.conf": renderKeepalivedConfig(parsedAws(rawTwoZones()), "director-2"),
      "vrrp-guard.json": renderGuardConfig(parsedAws(rawTwoZones()), "director-2"),
    },
  },
  {
    name: "aws-internet",
    texts: {
      "keepalived-director-1.conf": renderKeepalivedConfig(parsedAws(rawInternet()), "director-1"),
      "vip-mover-director-2.json": renderVipMoverConfig(parsedAws(rawInternet()), "director-2", "made-up"),
      "director-rules.nft": renderPacketRules(parsedAws(rawInternet())),
    },
  },
  {
    name: "ssh",
    texts: {
      ssh_config: renderSshConfig({
        entries: sshEntries,
        knownHostsFiles: ["/made up/known_hosts", "/made/100%/known_hosts"],
        identityFile: "/made up/id_ed25519",
        connectTimeout: 10,
        controlPath: "/made/up/cm-%C",
      }),
      "ssh_config-agent": renderSshConfig({
        entries: sshEntries.slice(1, 2).map(({ through: _, ...entry }) => entry),
        knownHostsFiles: ["/made/up/known_hosts"],
        connectTimeout: 2.5,
      }),
      known_hosts: renderKnownHosts(sshEntries),
    },
  },
];

/** Where the texts are kept. */
export const goldenFolder = new URL("texts/", import.meta.url);
