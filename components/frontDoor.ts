import * as pulumi from "@pulumi/pulumi";
import * as tls from "@pulumi/tls";
import { parseIPv4 } from "../config/addresses";
import { fingerprintOf } from "../config/certificate";
import type { ClusterConfig, HttpsConfig } from "../config/schema";
import {
  DOOR_USER,
  FRONT_DOOR_CHECK,
  renderApiKeys,
  renderFrontDoorConfig,
  renderFrontDoorUnit,
  renderHttpUsers,
} from "../render/frontDoor";
import { paths } from "../render/paths";
import { renderRealServerTurn } from "../render/turns";
import type { RealServer } from "./realServer";
import { type LayerContent, layer } from "./remote/layer";
import { rootFile } from "./remote/manifest";

const UNIT = "cosyvoice-front-door.service";

/** Hours that a certificate of our own is valid, and before its end from when on a deployment makes a new one. */
const SELF_SIGNED = { valid: 365 * 24, renewed: 30 * 24 };

/** Secrets of the front door, as they are set in the stack. */
export interface FrontDoorSecrets {
  readonly tlsCertificate?: pulumi.Input<string> | undefined;
  readonly tlsKey?: pulumi.Input<string> | undefined;
  readonly apiKeys?: pulumi.Input<string> | undefined;
  readonly httpUsers?: pulumi.Input<string> | undefined;
}

export interface FrontDoorArgs extends FrontDoorSecrets {
  readonly config: ClusterConfig;
  readonly https: HttpsConfig;
  readonly realServers: readonly RealServer[];
}

/**
 * nginx on every real server, which speaks HTTPS for the service beside it. Three layers a machine, by what a change of each
 * asks for: the secrets and the configuration are read anew without a dropped connection, so that a renewed certificate or another
 * limit takes nobody out of the pool; only the unit itself is changed in the node's turn.
 */
export class FrontDoor extends pulumi.ComponentResource {
  /** The layers after which every real server answers HTTPS. */
  readonly opened: readonly pulumi.Resource[];
  readonly content: pulumi.Output<string>;
  /** The certificate that clients must be shown, and its issuers'. */
  readonly certificate: pulumi.Output<string>;
  /** SHA-256 of the certificate that clients must be shown, as hexadecimal digits. */
  readonly fingerprint: pulumi.Output<string>;

  constructor(name: string, args: FrontDoorArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:index:FrontDoor", name, {}, opts);
    const { config, https } = args;
    const parent = { parent: this };
    const { certificate, key } =
      https.certificate === "selfSigned" ? this.selfSigned(name, config, https) : fromConfig(args);
    const secrets = pulumi
      .all([certificate, key, pulumi.secret(args.apiKeys), pulumi.secret(args.httpUsers)])
      .apply(([chain, privateKey, apiKeys, users]) => secretContent(chain, privateKey, apiKeys, users));

    const layers = args.realServers.map(({ machine, configured }) => {
      const each = `${name}-${machine.name}`;
      const kept = layer(`${each}-secrets`, machine, "front-door-secrets", pulumi.secret(secrets), {
        ...parent,
        dependsOn: [configured],
      });
      const configuration = layer(
        `${each}-config`,
        machine,
        "front-door-config",
        configContent(config, machine.name),
        { ...parent, dependsOn: [kept] },
      );
      const unit = layer(each, machine, "front-door", unitContent(config, https, machine.name), {
        ...parent,
        dependsOn: [configuration],
      });
      return { configuration, unit };
    });

    this.opened = layers.map(({ unit }) => unit);
    // What a certificate is anybody is shown; only the chain's text came as a secret.
    this.certificate = pulumi.unsecret(pulumi.output(certificate).apply(withNewline));
    this.fingerprint = this.certificate.apply(fingerprintOf);
    this.content = pulumi
      .all([
        ...layers.flatMap(({ configuration, unit }) => [configuration.stdin, unit.stdin]),
        this.fingerprint,
      ])
      .apply((texts) => texts.join(""));
    this.registerOutputs({ fingerprint: this.fingerprint });
  }

  /** A certificate that vouches for itself, for the name, the VIP and every real server. */
  private selfSigned(name: string, { vip }: ClusterConfig, { serverName }: HttpsConfig) {
    const parent = { parent: this };
    const key = new tls.PrivateKey(`${name}-key`, { algorithm: "ECDSA", ecdsaCurve: "P256" }, parent);
    const isAddress = parseIPv4(serverName) !== undefined;
    const certificate = new tls.SelfSignedCert(
      `${name}-certificate`,
      {
        privateKeyPem: key.privateKeyPem,
        subject: { commonName: serverName },
        dnsNames: isAddress ? [] : [serverName],
        ipAddresses: [...new Set([vip, ...(isAddress ? [serverName] : [])])],
        allowedUses: ["digital_signature", "server_auth"],
        validityPeriodHours: SELF_SIGNED.valid,
        earlyRenewalHours: SELF_SIGNED.renewed,
      },
      parent,
    );
    return { certificate: certificate.certPem, key: key.privateKeyPem };
  }
}

function fromConfig({ tlsCertificate, tlsKey }: FrontDoorSecrets) {
  if (tlsCertificate === undefined || tlsKey === undefined)
    throw new pulumi.RunError("tlsCertificate and tlsKey were found set, but a value is missing.");
  return { certificate: pulumi.secret(tlsCertificate), key: pulumi.secret(tlsKey) };
}

/** In a layer of their own, so that they neither hide nor appear in the diff of the rest. */
function secretContent(
  certificate: string,
  key: string,
  apiKeys: string | undefined,
  users: string | undefined,
): LayerContent {
  const reload = { notify: [`reload:${UNIT}`] };
  const nginxOnly = { mode: "0640", owner: `root:${DOOR_USER}`, ...reload };
  const guarded = apiKeys !== undefined;
  return {
    secret: true,
    directories: { [paths.frontDoor]: { mode: "0755", owner: "root:root" } },
    files: {
      [paths.frontDoorCertificate]: rootFile(withNewline(certificate), reload),
      [paths.frontDoorKey]: rootFile(withNewline(key), nginxOnly),
      ...(guarded
        ? {
            [paths.frontDoorApiKeys]: rootFile(renderApiKeys(apiKeys), nginxOnly),
            [paths.frontDoorUsers]: rootFile(renderHttpUsers(users), nginxOnly),
          }
        : {}),
    },
  };
}

function withNewline(text: string): string {
  return `${text.trimEnd()}\n`;
}

function configContent(config: ClusterConfig, machineName: string): LayerContent {
  return {
    preflight: [
      {
        name: "no other nginx runs",
        run: "! systemctl is-active --quiet nginx.service",
        fix: "the front door is an nginx of its own and needs its ports: systemctl disable --now nginx.service, or another machine",
      },
    ],
    packages: ["nginx"],
    directories: {
      [paths.frontDoorState]: { mode: "0700", owner: `${DOOR_USER}:${DOOR_USER}`, purge: true },
    },
    files: {
      [paths.frontDoorConfig]: rootFile(renderFrontDoorConfig(config, machineName), {
        check: FRONT_DOOR_CHECK,
        notify: [`reload:${UNIT}`],
      }),
    },
    // The package enables it.
    units: { "nginx.service": { enabled: false, started: false } },
  };
}

function unitContent(config: ClusterConfig, https: HttpsConfig, machineName: string): LayerContent {
  return {
    files: { [paths.frontDoorUnit]: rootFile(renderFrontDoorUnit(), { notify: [`restart:${UNIT}`] }) },
    around: { name: "take a turn", run: renderRealServerTurn(config, machineName, "the front door's unit") },
    units: { [UNIT]: { enabled: true, started: true } },
    checks: [
      {
        name: "nginx answers HTTPS",
        // Any answer will do: the service behind it may be on its way.
        run: `curl -sk --max-time 5 -o /dev/null https://127.0.0.1:${https.port}/`,
        within: 30,
      },
    ],
  };
}
